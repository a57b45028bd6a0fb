//! One call as a pure machine: inputs in, actions out; its queue of operations; why we say no.
