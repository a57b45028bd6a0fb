//! Notifications whose delivery was abandoned: their content, the last error, and sending them
//! again.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    asked::{Asked, json as shown, ok},
    deadline,
    error::ApiError,
    query::QueryOptions,
};
use crate::drivers::store::GivenUp;
use aftertone_core::{graph, model::CallId};

/// The members that `$select` may name.
pub(super) const MEMBERS: [&str; 6] =
    ["id", "callbackUri", "createdDateTime", "attempts", "lastError", "notification"];

impl Asked<'_> {
    pub(super) async fn list_undelivered(&self) -> Result<Response, ApiError> {
        let options = QueryOptions::for_collection(self.query(), &MEMBERS)?;
        let (skip, size) = options.window();
        let listed = self.state.store.undelivered(self.application(), skip, size);
        let (total, given_up) = deadline::reading(listed).await?;
        let name = "communications/undeliveredNotifications";
        let context = self.graph.metadata_url(name);
        let url = format!("{}/{name}", self.graph.base_url());
        let place = options.place(total, given_up.len());
        let shown = given_up.iter().map(|given_up| self.given_up(given_up)).collect();
        Ok(ok(&options.page(context, &url, place, shown)))
    }

    pub(super) async fn resend(&self, which: Option<(CallId, u64)>) -> Result<Response, ApiError> {
        QueryOptions::for_action(self.query())?;
        let count = deadline::acting(self.state.store.resend(self.application(), which)).await?;
        match (which, count) {
            (Some(_), 0) => Err(ApiError::NoNotification),
            _ => Ok(StatusCode::ACCEPTED.into_response()),
        }
    }

    fn given_up(&self, given_up: &GivenUp) -> Value {
        let delivery = &given_up.delivery;
        let told = graph::notification(&self.graph, &delivery.event, delivery.sequence, None);
        json!({
            "id": format!("{}-{}", delivery.call, delivery.sequence),
            "callbackUri": delivery.callback_uri,
            "createdDateTime": graph::date_time(given_up.created_at),
            "attempts": delivery.attempts,
            "lastError": given_up.error,
            "notification": shown(&told),
        })
    }
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
