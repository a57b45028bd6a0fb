//! Signed tokens (RFC 7519): what this house signs, with which keys, and whose signatures it believes.
//!
//! In: rows of the store with our keys, the metadata of outside issuers, a clock as argument. Out:
//! tokens for applications and for notifications, the public keys to check them with, and of a token
//! that was shown the application that it names. It knows no application and no request.
//!
//! | file | does |
//! |---|---|
//! | `claims` | what a token says, and when that holds |
//! | `local` | tokens of `aftertone token`, under a secret of this machine (HS256) |
//! | `keys` | the RS256 keys: which one signs, which are published, when they go |
//! | `issuer` | signs with them, keeps them in the store and turns them over |
//! | `jwks` | the keys of issuers elsewhere, as they publish them |
//! | `outside` | believes issuers elsewhere: Entra ID, Keycloak |
//! | `verifier` | all of these behind one question |

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
