//! Runs the fuzz targets of tests/fuzz over their saved corpora, and over the torture messages.

// The tests read files, and take the current time as their start.
#![allow(clippy::disallowed_methods)]

#[path = "../../../tests/fuzz/targets.rs"]
mod targets;

use std::{fs, path::Path};

fn replay(folder: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests").join(folder);
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        // On failure, the last printed path is the one that failed.
        println!("{}", path.display());
        target(&fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}

macro_rules! corpora {
    ($($target:ident),*) => {$(
        #[test]
        fn $target() {
            replay(concat!("fuzz/corpus/", stringify!($target)), targets::$target);
        }
    )*};
}

corpora!(wire, uri, sdp, framing, digest, stun, rtp, rtcp, srtp, endpoint);

#[test]
fn torture() {
    for target in [targets::wire, targets::framing, targets::endpoint, targets::sdp] {
        replay("torture", target);
    }
}
