//! HTTPS with files given by the user.

use std::sync::Arc;

use bytes::Bytes;
use cello_relay::clock::SystemClock;
use cello_relay::simulator::{Options, Simulator, TlsFiles};
use http_body_util::Full;
use hyper::{Request, Version};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;

use super::client::{KEYS, read};

struct Files {
    _dir: tempfile::TempDir,
    files: TlsFiles,
    cert: CertificateDer<'static>,
}

fn files() -> Files {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let dir = tempfile::tempdir().expect("a directory");
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    Files { _dir: dir, files: TlsFiles { cert, key }, cert: made.cert.der().clone() }
}

#[tokio::test]
async fn https_is_served_with_the_given_certificate_over_http_1_and_2() {
    let files = files();
    let options = Options { tls: Some(files.files.clone()), ..Options::default() };
    let simulator = Simulator::start(options, Arc::new(SystemClock)).expect("a free port");
    assert!(simulator.base_url().starts_with("https://127.0.0.1:"));

    let mut roots = rustls::RootCertStore::empty();
    roots.add(files.cert.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocols")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = || hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config.clone()).https_only();
    for (connector, version) in
        [(connector().enable_http1().build(), Version::HTTP_11), (connector().enable_http2().build(), Version::HTTP_2)]
    {
        let client = Client::builder(TokioExecutor::new()).http2_only(version == Version::HTTP_2).build(connector);
        let request = Request::post(format!("{}/token", simulator.base_url())).body(Full::<Bytes>::from(KEYS));
        let answer = client.request(request.expect("a request")).await.expect("an answer");
        let answer = read(answer).await.expect("a body");
        assert_eq!((answer.status, answer.version), (201, version));
    }
    simulator.stop().await;
}

#[tokio::test]
async fn bad_tls_files_are_named_at_the_start() {
    let files = files();
    let swapped = TlsFiles { cert: files.files.cert.clone(), key: files.files.cert.clone() };
    let missing = TlsFiles { cert: "/nowhere/cert.pem".into(), key: files.files.key.clone() };
    for tls in [swapped, missing] {
        let options = Options { tls: Some(tls), ..Options::default() };
        let error = Simulator::start(options, Arc::new(SystemClock)).expect_err("bad files");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("cert.pem"), "{error}");
    }
}
