//! Whom to trust: the roots of the web, built in, and those of `ca_file`.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::BuildError;

/// A client's TLS, with HTTP/2 and HTTP/1.1 offered.
pub(super) fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, BuildError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca_file {
        add(&mut roots, path).map_err(|why| BuildError::CaFile { path: path.to_owned(), why })?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.len() == before { Err("it holds no certificate".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(content: &str) -> Result<ClientConfig, BuildError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, content).unwrap();
        client_config(Some(&path))
    }

    #[test]
    fn a_ca_file_that_cannot_be_used_is_named() {
        for content in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let error = config(content).unwrap_err().to_string();
            assert!(error.contains("ca.pem"), "{error}");
        }
        let missing = client_config(Some(Path::new("/does/not/exist.pem"))).unwrap_err().to_string();
        assert!(missing.contains("/does/not/exist.pem"), "{missing}");
    }

    #[test]
    fn more_roots_come_on_top_of_the_built_in_ones() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        assert!(config(&made.cert.pem()).is_ok());
        assert!(client_config(None).is_ok());
    }
}
