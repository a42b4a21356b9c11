//! A plain client, so that a test reads as what goes over the wire.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use cello_relay::clock::{TestClock, Timestamp};
use cello_relay::simulator::{Options, Simulator};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{HeaderMap, Request, Version};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {:?}", self.text))
    }
}

/// A stand-in and a client that has a token for it.
pub(crate) struct Stage {
    pub(crate) simulator: Simulator,
    pub(crate) clock: Arc<TestClock>,
    client: Client<HttpConnector, Full<Bytes>>,
    pub(crate) token: String,
}

pub(crate) const KEYS: &str = r#"{"accessKeyId":"id","secretAccessKey":"secret"}"#;

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let clock = Arc::new(TestClock::starting_at(Timestamp::from_millis(1_764_000_000_000)));
        let simulator = Simulator::start(options, clock.clone()).expect("a free port");
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut stage = Self { simulator, clock, client, token: String::new() };
        let tokens = stage.post("/token", KEYS).await;
        stage.token = tokens.json()["accessToken"].as_str().expect("an access token").to_owned();
        stage
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.simulator.addr()
    }

    pub(crate) async fn try_send(
        &self,
        method: &str,
        path: &str,
        extra: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer, Error> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.simulator.base_url()));
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in extra {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned())).expect("a request");
        read(self.client.request(request).await?).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        self.try_send(method, path, &[], body).await.expect("an answer")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, body).await
    }

    /// Posts a good event of a user.
    pub(crate) async fn event(&self, user: &str) -> Result<Answer, Error> {
        self.try_send("POST", "/events", &[], &event(user)).await
    }

    pub(crate) async fn set_faults(&self, faults: Value) {
        let answer = self.send("PUT", "/_sim/faults", &faults.to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

pub(crate) async fn read(response: hyper::Response<hyper::body::Incoming>) -> Result<Answer, Error> {
    let (head, body) = response.into_parts();
    #[expect(clippy::disallowed_methods, reason = "Limited bounds it")]
    let body = Limited::new(body, 64 << 20).collect().await.expect("a whole body").to_bytes();
    let text = String::from_utf8(body.into()).expect("UTF-8");
    Ok(Answer { status: head.status.as_u16(), version: head.version, headers: head.headers, text })
}

pub(crate) fn event(user: &str) -> String {
    numbered(user, json!({}))
}

pub(crate) fn numbered(user: &str, context: Value) -> String {
    json!({"eventName": "ReferralUpdated", "payload": {"ucc": "c", "newUserId": user}, "context": context}).to_string()
}
