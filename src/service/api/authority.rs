//! Serves the CA certificate of a development certificate, so that clients can trust it. The file
//! itself is in a folder that only the daemon can read.

use axum::{
    extract::State,
    http::{HeaderValue, Method, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};

use super::{ApiState, error::ApiError, exchange::Audit};

/// Path of the CA certificate.
pub const PATH: &str = "/development-ca.pem";

/// `/development-ca.pem`. Not found when the server uses another certificate.
pub(super) async fn authority(State(state): State<ApiState>, method: Method) -> Response {
    let mut response = match shown(&state, &method).await {
        Ok(pem) => {
            let pem_file = HeaderValue::from_static("application/x-pem-file");
            ([(CONTENT_TYPE, pem_file)], pem).into_response()
        }
        Err(error) => error.into_response(),
    };
    let audit = Audit { route: PATH.into(), ..Audit::default() };
    response.extensions_mut().insert(audit);
    response
}

async fn shown(state: &ApiState, method: &Method) -> Result<Vec<u8>, ApiError> {
    if ![Method::GET, Method::HEAD].contains(method) {
        return Err(ApiError::Method { allow: "GET, HEAD" });
    }
    let unknown = || ApiError::UnknownSegment(PATH.trim_start_matches('/').to_owned());
    let file = state.authority.as_deref().ok_or_else(unknown)?;
    // Read for each request, because an expiring certificate is replaced.
    tokio::fs::read(file).await.map_err(|error| {
        tracing::error!(%error, "the authority of the development certificate cannot be read");
        ApiError::Internal
    })
}

#[cfg(test)]
mod tests {
    use crate::service::api::fake::{Fake, bytes_of};

    #[tokio::test]
    async fn it_is_given_to_anybody_where_there_is_one() {
        let mut fake = Fake::new();
        assert_eq!(fake.ask("GET", super::PATH, "", &[]).await.status(), 404);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, "a certificate").unwrap();
        fake.state = fake.state.with_authority(Some(&file));
        let shown = fake.ask("GET", super::PATH, "", &[]).await;
        assert_eq!(shown.status(), 200);
        assert_eq!(bytes_of(shown).await, b"a certificate");
        assert_eq!(fake.ask("POST", super::PATH, "", &[]).await.status(), 405);
    }
}
