//! Certificates of the server's own making.

use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::binding;
use crate::http::tls::Signer;

/// How long a certificate is valid. Some systems take none that holds for over 825 days; it
/// is made anew at each start.
const VALIDITY: Duration = Duration::from_secs(820 * 86_400);

/// For clocks that are behind ours.
const BACKDATED: Duration = Duration::from_secs(86_400);

/// A certificate for these names and addresses, and its key.
pub(super) fn self_signed(
    names: Vec<String>,
    signer: Option<&Signer>,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), String> {
    make(names, signer, SystemTime::now()).map(|(certificate, key)| {
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        (certificate, key.into())
    })
}

fn make(
    names: Vec<String>,
    signer: Option<&Signer>,
    now: SystemTime,
) -> Result<(CertificateDer<'static>, KeyPair), String> {
    let told = |error: rcgen::Error| error.to_string();
    // Ed25519 would be simpler, but browsers do not take it.
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(told)?;
    let mut params = CertificateParams::new(names).map_err(told)?;
    params.distinguished_name = DistinguishedName::new();
    let name = match signer {
        Some(signer) => signer.0.peer_id().to_string(),
        None => "chiral".to_owned(),
    };
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + VALIDITY).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if let Some(signer) = signer {
        let content = binding::extension(&*signer.0, &key.public_key_der())?;
        // Not critical: who does not know it shall take the certificate all the same.
        let extension = CustomExtension::from_oid_content(binding::OID, content);
        params.custom_extensions.push(extension);
    }
    let certificate = params.self_signed(&key).map_err(told)?;
    Ok((certificate.der().clone(), key))
}
