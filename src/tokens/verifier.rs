//! Whose token is this? The one question that the API asks.

use jsonwebtoken::{Algorithm, dangerous::insecure_decode, decode_header};
use serde::Deserialize;

use super::{Issuer, LocalKey, OutsideIssuer, claims::TokenError};
use crate::model::UnixMillis;

/// Everybody whose tokens are believed.
#[derive(Default)]
pub struct Verifier {
    /// The command on this machine.
    pub local: Option<LocalKey>,
    /// This house.
    pub issuer: Option<Issuer>,
    /// Others.
    pub outside: Vec<OutsideIssuer>,
}

/// The application that a token names, and what the token says that it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The application's id.
    pub application: String,
    /// Its roles, as far as the issuer knows.
    pub roles: Vec<String>,
}

/// Read before anything is believed, only to find the key.
#[derive(Deserialize)]
struct Claimed {
    #[serde(default)]
    iss: String,
}

impl Verifier {
    /// Whom a token names, if it is valid now.
    ///
    /// # Errors
    /// Says why it is not believed.
    pub async fn named(&self, token: &str, now: UnixMillis) -> Result<Named, TokenError> {
        let header = decode_header(token).map_err(|_| TokenError::Invalid)?;
        let claims = match (header.alg, &self.local, header.kid) {
            (Algorithm::HS256, Some(local), _) => local.verified(token, now)?,
            (algorithm, _, Some(key)) => {
                let claimed = insecure_decode::<Claimed>(token).map_err(|_| TokenError::Invalid)?;
                self.signed(token, &claimed.claims.iss, &key, algorithm, now).await?
            }
            _ => return Err(TokenError::Invalid),
        };
        let application = claims.application().ok_or(TokenError::Invalid)?.to_owned();
        Ok(Named { application, roles: claims.all_roles().map(str::to_owned).collect() })
    }

    async fn signed(
        &self,
        token: &str,
        issuer: &str,
        key: &str,
        algorithm: Algorithm,
        now: UnixMillis,
    ) -> Result<super::Claims, TokenError> {
        if let Some(ours) = self.issuer.as_ref().filter(|ours| ours.name() == issuer) {
            return ours.verified(token, key, now);
        }
        for outside in &self.outside {
            if let Some(claims) = outside.verified(token, issuer, key, algorithm, now).await {
                return claims;
            }
        }
        Err(TokenError::Invalid)
    }
}
