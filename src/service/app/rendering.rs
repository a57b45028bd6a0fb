//! Renders a notification of the outbox as an HTTP POST.

use std::{sync::Arc, time::SystemTime};

use serde_json::to_vec;
use tokio::sync::watch;

use crate::{
    drivers::{
        notify::{Render, Rendered},
        store::Delivery,
        tokens::Issuer,
    },
    service::{
        api::{ApiStore, DatabaseStore},
        config::ApiConfig,
        switchboard::Directory,
    },
};
use aftertone_core::{
    graph::{self, GraphContext, Version},
    model::{Event, UnixMillis},
};

/// Turns an entry of the outbox into the POST that delivers it.
pub(super) fn renderer(
    store: Arc<DatabaseStore>,
    api: &ApiConfig,
    issuer: Issuer,
    applications: watch::Receiver<Arc<Directory>>,
) -> Render {
    let context = GraphContext {
        tenant: api.tenant.clone(),
        public_url: store.public_url.clone(),
        version: Version::V1,
        identity_type: api.identity_type,
    };
    Arc::new(move |delivery: &Delivery| {
        let link = match &delivery.event {
            Event::OperationEnded { operation } => {
                operation.recording.as_ref().map(|recorded| store.recording_link(recorded.id))
            }
            _ => None,
        };
        let body = graph::notification(&context, &delivery.event, delivery.sequence, link.as_ref());
        // An application that was removed from the configuration may be added again, so its
        // notification waits. It is never sent to another application.
        let directory = applications.borrow().clone();
        let (id, callback) = directory
            .application(&delivery.application)
            .ok_or("its application is not in the configuration")?;
        let now = UnixMillis::from(SystemTime::now());
        let token = match delivery.attempts {
            0 => issuer.notification_token(id, now),
            // The receiver may have refused the previous token.
            _ => issuer.fresh_notification_token(id, now),
        };
        let token = token.map_err(|error| format!("it cannot be signed: {error}"))?;
        let home = url::Url::parse(callback).map(|url| url.origin().ascii_serialization());
        Ok(Rendered {
            // Printing our own types as JSON cannot fail.
            body: to_vec(&body).unwrap_or_default(),
            headers: notification_headers(delivery, &format!("Bearer {token}")),
            home: home.unwrap_or_default(),
        })
    })
}

/// The token that proves our identity to an application (contract section 6.4), and the three
/// headers from which applications take the scenario and detect repeated notifications (6.1).
fn notification_headers(delivery: &Delivery, bearer: &str) -> axum::http::HeaderMap {
    let message = format!("{}-{}", delivery.call, delivery.sequence);
    [
        ("content-type", "application/json"),
        ("authorization", bearer),
        ("x-microsoft-skype-chain-id", &delivery.chain_id),
        ("scenario-id", &delivery.chain_id),
        ("x-microsoft-skype-message-id", &message),
    ]
    .into_iter()
    .filter_map(|(name, value)| {
        Some((axum::http::HeaderName::from_static(name), value.parse().ok()?))
    })
    .collect()
}
