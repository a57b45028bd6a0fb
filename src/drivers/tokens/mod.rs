//! Signed tokens (RFC 7519): which tokens this server signs, with which keys, and which issuers it
//! trusts.
//!
//! In: rows of the store with our keys, the metadata of outside issuers, a clock as argument. Out:
//! tokens for applications and for notifications, the public keys to check them with, and the
//! application that a received token names. This module knows no application and no request.
//!
//! | file | does |
//! |---|---|
//! | `claims` | the claims of a token, and when they are valid |
//! | `local` | tokens of `aftertone token`, under a secret of this machine (HS256) |
//! | `keys` | the RS256 keys: which one signs, which are published, when they are dropped |
//! | `issuer` | signs with them, keeps them in the store and rotates them |
//! | `jwks` | the keys of outside issuers, as they publish them |
//! | `outside` | trusts outside issuers: Entra ID, Keycloak |
//! | `verifier` | all of these behind one function |

mod claims;
mod issuer;
mod jwks;
mod keys;
mod local;
mod outside;
mod verifier;

pub use claims::{BACKDATE, Claims, NumericDate, TokenError};
pub use issuer::{Issuer, IssuerConfig, Minted};
pub use keys::{KeyError, KeyRing};
pub use local::LocalKey;
pub use outside::{OutsideConfig, OutsideError, OutsideIssuer};
pub use verifier::{Named, Verifier};
