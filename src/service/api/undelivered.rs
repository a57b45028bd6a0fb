//! Notifications whose delivery was abandoned: their content, the last error, and sending them
//! again.

use std::str::FromStr;

use axum::{
    extract::Path,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    deadline,
    error::ApiError,
    json::{json as shown, ok},
    query::QueryOptions,
    request::GraphRequest,
};
use crate::drivers::store::GivenUp;
use aftertone_core::{
    graph::{self, GraphContext},
    model::CallId,
};

/// The members that `$select` may name.
pub(super) const MEMBERS: [&str; 6] =
    ["id", "callbackUri", "createdDateTime", "attempts", "lastError", "notification"];

/// The id of a notification: the call, and its number among the call's notifications.
pub(super) struct NotificationId(CallId, u64);

impl FromStr for NotificationId {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let (call, sequence) = text.rsplit_once('-').ok_or(ApiError::NoNotification)?;
        let call = call.parse().map_err(|_| ApiError::NoNotification)?;
        Ok(Self(call, sequence.parse().map_err(|_| ApiError::NoNotification)?))
    }
}

pub(super) async fn list(request: GraphRequest) -> Result<Response, ApiError> {
    let options = QueryOptions::for_collection(request.query(), &MEMBERS)?;
    let (skip, size) = options.window();
    let listed = request.state.store.undelivered(request.application(), skip, size);
    let (total, given_up) = deadline::reading(listed).await?;
    let name = "communications/undeliveredNotifications";
    let context = request.graph.metadata_url(name);
    let url = format!("{}/{name}", request.graph.base_url());
    let place = options.place(total, given_up.len());
    let shown = given_up.iter().map(|given_up| element(&request.graph, given_up)).collect();
    Ok(ok(&options.page(context, &url, place, shown)))
}

pub(super) async fn resend_all(request: GraphRequest) -> Result<Response, ApiError> {
    QueryOptions::for_action(request.query())?;
    let resent = request.state.store.resend(request.application(), None);
    deadline::acting(resent).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

pub(super) async fn resend(
    request: GraphRequest,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    QueryOptions::for_action(request.query())?;
    let NotificationId(call, sequence) = id.parse()?;
    let resent = request.state.store.resend(request.application(), Some((call, sequence)));
    match deadline::acting(resent).await? {
        0 => Err(ApiError::NoNotification),
        _ => Ok(StatusCode::ACCEPTED.into_response()),
    }
}

fn element(graph: &GraphContext, given_up: &GivenUp) -> Value {
    let delivery = &given_up.delivery;
    let told = graph::notification(graph, &delivery.event, delivery.sequence, None);
    json!({
        "id": format!("{}-{}", delivery.call, delivery.sequence),
        "callbackUri": delivery.callback_uri,
        "createdDateTime": graph::date_time(given_up.created_at),
        "attempts": delivery.attempts,
        "lastError": given_up.error,
        "notification": shown(&told),
    })
}

#[cfg(test)]
mod tests {
    use crate::service::api::fake::{CALL, Command, Fake, json_of};

    const PATH: &str = "/v1.0/communications/undeliveredNotifications";

    #[tokio::test]
    async fn what_was_given_up_is_listed_with_its_reason() {
        let list = json_of(Fake::new().get(PATH).await).await;
        let one = &list["value"][0];
        assert_eq!(one["id"], format!("{CALL}-3"));
        assert_eq!(one["lastError"], "answered 403 Forbidden");
        assert_eq!(one["createdDateTime"], "1970-01-01T00:00:00Z");
        assert_eq!(one["notification"]["value"][0]["changeType"], "updated");
    }

    #[tokio::test]
    async fn a_long_list_is_paged_to_its_end() {
        let fake = Fake::new();
        fake.service.give_up(2500);
        let mut path = format!("{PATH}?$count=true");
        let mut seen = Vec::new();
        for _ in 0..3 {
            let page = json_of(fake.get(&path).await).await;
            assert_eq!(page["@odata.count"], 2500);
            let ids = page["value"].as_array().unwrap().iter().map(|one| one["id"].to_string());
            seen.extend(ids);
            let next = page["@odata.nextLink"].as_str().unwrap_or_default().to_owned();
            path = next.strip_prefix("https://api.example").unwrap_or_default().to_owned();
        }
        assert_eq!(path, "");
        seen.dedup();
        assert_eq!(seen.len(), 2500);
    }

    #[tokio::test]
    async fn it_is_sent_again_when_the_application_wants() {
        for (rest, status) in [
            (format!("/{CALL}-3/resend"), 202),
            ("/resend".to_owned(), 202),
            (format!("/{CALL}-4/resend"), 404),
        ] {
            let fake = Fake::new();
            let response = fake.send("POST", &format!("{PATH}{rest}"), None).await;
            assert_eq!(response.status(), status, "{rest}");
            assert!(matches!(fake.service.last_command(), Some(Command::Resend(_))));
        }
    }
}
