//! Who is spoken to, and as whom.

use countersign::store::{EtcdStore, Store as _, StoreError, StoreTls};
use countersign::tls::TlsFault;
use tokio::net::TcpListener;

use crate::harness::etcd::EtcdOptions;
use crate::harness::tls::{Ca, acceptor};
use crate::store::etcd;
use crate::store_contract::key;

const TLS: EtcdOptions = EtcdOptions { members: 1, tls: true, client_certificates: true };

#[tokio::test]
async fn an_etcd_of_another_authority_or_name_is_not_spoken_to() {
    let (folder, etcd) = etcd("an_etcd_of_another_authority", TLS).await;
    let endpoint = etcd.endpoint(0);
    let other = Ca::new(folder.sub("other-ca"), "other authority");
    let mut settings = etcd.settings("prod");
    settings.tls = settings.tls.map(|tls| StoreTls { ca_file: other.file(), ..tls });
    let error = EtcdStore::new(&settings).read(&key(&["a"])).await.unwrap_err();
    assert_eq!(error, StoreError::Tls { endpoint, fault: TlsFault::UnknownIssuer });
    assert!(!error.is_outage() && error.to_string().contains("store.ca-file"), "{error}");

    // One of the right authority, with the name of another host.
    let acceptor = acceptor(&etcd.ca.certificate("elsewhere", vec!["etcd.elsewhere.test".to_owned()]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    let mut settings = etcd.settings("prod");
    settings.endpoints = vec![endpoint.parse().unwrap()];
    let error = EtcdStore::new(&settings).read(&key(&["a"])).await.unwrap_err();
    assert_eq!(error, StoreError::Tls { endpoint, fault: TlsFault::WrongHost });
    // It does not keep a node from the right one.
    settings.endpoints.push(etcd.endpoint(0).parse().unwrap());
    assert_eq!(EtcdStore::new(&settings).read(&key(&["a"])).await, Ok(None));
}

#[tokio::test]
async fn without_the_right_client_certificate_etcd_refuses_and_it_is_said_whose_fault_that_is() {
    let (folder, etcd) = etcd("without_the_right_client_certificate", TLS).await;
    let endpoint = etcd.endpoint(0);
    let other = Ca::new(folder.sub("other-ca"), "other authority").server("stranger");
    for client in [None, Some((other.certificate, other.key))] {
        let mut settings = etcd.settings("prod");
        settings.tls = settings.tls.map(|tls| StoreTls { client, ..tls });
        let error = EtcdStore::new(&settings).read(&key(&["a"])).await.unwrap_err();
        assert_eq!(error, StoreError::ClientCertificate { endpoint: endpoint.clone() });
        assert!(!error.is_outage() && error.to_string().contains("store.certificate-file"), "{error}");
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_and_renewed_ones_are_taken() {
    let (folder, etcd) = etcd("files_that_cannot_be_used", TLS).await;
    let good = etcd.settings("prod");
    let tls = good.tls.clone().unwrap();
    let (certificate, private) = tls.client.clone().unwrap();
    let empty = folder.configuration("empty.pem", "");
    let cases = [
        (StoreTls { ca_file: folder.path().join("missing.pem"), ..tls.clone() }, "cannot be read"),
        (StoreTls { ca_file: folder.path().to_owned(), ..tls.clone() }, "is not a regular file"),
        (StoreTls { ca_file: empty.clone(), ..tls.clone() }, "holds no certificate"),
        (StoreTls { client: Some((certificate.clone(), empty.clone())), ..tls.clone() }, "holds no private key"),
        (StoreTls { client: Some((tls.ca_file.clone(), private.clone())), ..tls.clone() }, "does not fit the certificate"),
    ];
    for (tls, said) in cases {
        let mut settings = good.clone();
        settings.tls = Some(tls);
        let error = EtcdStore::new(&settings).read(&key(&["a"])).await.unwrap_err();
        assert!(matches!(error, StoreError::File { .. }) && error.to_string().contains(said), "{said}: {error}");
    }
    // The same store, whose file is put right.
    let mut settings = good.clone();
    settings.tls = Some(StoreTls { ca_file: empty.clone(), ..tls.clone() });
    let store = EtcdStore::new(&settings);
    assert!(store.read(&key(&["a"])).await.is_err());
    std::fs::copy(&tls.ca_file, &empty).unwrap();
    assert_eq!(store.read(&key(&["a"])).await, Ok(None));
}

#[tokio::test]
async fn an_etcd_that_speaks_without_tls_is_not_taken_for_one_that_does_and_the_other_way_round() {
    let (_folder, plain) = etcd("an_etcd_that_speaks_without_tls", EtcdOptions::OPEN).await;
    let (_other, encrypted) = etcd("an_etcd_that_speaks_tls", TLS).await;
    let mut settings = encrypted.settings("prod");
    settings.endpoints = vec![plain.endpoint(0).replace("http:", "https:").parse().unwrap()];
    let error = EtcdStore::new(&settings).read(&key(&["a"])).await.unwrap_err();
    assert!(error.to_string().contains("the connection broke"), "etcd hangs up on what is not HTTP: {error}");
    settings.endpoints = vec![encrypted.endpoint(0).replace("https:", "http:").parse().unwrap()];
    let error = EtcdStore::new(&settings).read(&key(&["a"])).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
}
