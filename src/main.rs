//! aftertone
fn main() {}
