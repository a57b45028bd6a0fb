//! Finds the application that a token names: the one question of the API.

use futures_util::future::join_all;
use jsonwebtoken::{Algorithm, dangerous::insecure_decode, decode_header};
use serde::Deserialize;

use super::{Claims, Issuer, LocalKey, OutsideIssuer, claims::TokenError, outside::Shown};
use aftertone_core::model::UnixMillis;

/// All issuers with trusted tokens.
#[derive(Default)]
pub struct Verifier {
    /// The `aftertone token` command on this machine.
    pub local: Option<LocalKey>,
    /// This server.
    pub issuer: Option<Issuer>,
    /// Outside issuers.
    pub outside: Vec<OutsideIssuer>,
}

/// The application that a token names, and the roles in the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The application's id.
    pub application: String,
    /// Its roles, according to the issuer.
    pub roles: Vec<String>,
    /// The issuer, if it is an outside one.
    pub issuer: Option<String>,
}

/// Parsed before the signature is checked, only to find the key.
#[derive(Deserialize)]
struct Claimed {
    #[serde(default)]
    iss: String,
}

impl Verifier {
    /// The application that a token names, if the token is valid now.
    ///
    /// # Errors
    /// Why the token is not accepted.
    pub async fn named(&self, token: &str, now: UnixMillis) -> Result<Named, TokenError> {
        let header = decode_header(token).map_err(|_| TokenError::Invalid)?;
        let (claims, audience, issuer) = match (header.alg, &self.local, header.kid) {
            (Algorithm::HS256, Some(local), _) => (local.verified(token, now)?, "", None),
            (algorithm, _, Some(key)) => {
                let claimed = insecure_decode::<Claimed>(token).map_err(|_| TokenError::Invalid)?;
                let issuer = claimed.claims.iss;
                match self.issuer.as_ref().filter(|ours| ours.name() == issuer) {
                    Some(ours) => (ours.verified(token, &key, now)?, "", None),
                    None => {
                        let shown = Shown { token, issuer: &issuer, key: &key, algorithm };
                        let (claims, audience) = self.elsewhere(&shown, now).await?;
                        (claims, audience, Some(issuer))
                    }
                }
            }
            _ => return Err(TokenError::Invalid),
        };
        let application = claims.application().ok_or(TokenError::Invalid)?.to_owned();
        let roles = claims.all_roles(audience).map(str::to_owned).collect();
        Ok(Named { application, roles, issuer })
    }

    /// The claims of a token of an outside issuer, and our audience at that issuer. The verdict of
    /// the keys that fit the token is final, whatever other issuers are configured: only if none
    /// fits, the token may be of an issuer that could not be reached yet.
    async fn elsewhere(
        &self,
        shown: &Shown<'_>,
        now: UnixMillis,
    ) -> Result<(Claims, &str), TokenError> {
        if let Some(verdict) = self.verdict(shown, now) {
            return verdict;
        }
        let named = self.outside.iter().filter(|outside| outside.is_named(shown.issuer));
        let mut asked: Vec<&OutsideIssuer> = named.collect();
        if asked.is_empty() {
            asked = self.outside.iter().collect();
        }
        let are_known = join_all(asked.into_iter().map(|outside| outside.ask_about(shown))).await;
        self.verdict(shown, now).unwrap_or(if are_known.into_iter().all(|is_known| is_known) {
            Err(TokenError::Invalid)
        } else {
            Err(TokenError::Unavailable)
        })
    }

    /// The verdict of the known keys. Two configured issuers may be the same one with two
    /// audiences: then the one that accepts the token counts.
    fn verdict(
        &self,
        shown: &Shown<'_>,
        now: UnixMillis,
    ) -> Option<Result<(Claims, &str), TokenError>> {
        let verdicts = self
            .outside
            .iter()
            .filter_map(|outside| Some((outside.verified(shown, now)?, outside.audience())));
        let (verdict, audience) =
            verdicts.max_by_key(|(verdict, _)| TokenError::weight(verdict))?;
        Some(verdict.map(|claims| (claims, audience)))
    }
}
