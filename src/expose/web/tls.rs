//! Makes the configuration of TLS out of PEM and choices.
//!
//! In: [`Settings`]. Out: what rustls serves by, or the part that is to blame.
//! Not here: reading files (`config::web`), handshakes (`http`).
//! Always: TLS 1.2 or later; nothing of an earlier connection is taken up again, so that each client is looked at
//! anew by the files that are there then; a certificate of a client is checked against nothing but the CA given.
//! Follows: RFC 5280 section 4.2.1.6 (subject alternative names).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring::{cipher_suite, kx_group};
use rustls::crypto::{SupportedKxGroup, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
    SupportedCipherSuite, SupportedProtocolVersion,
};

/// How far clients are asked for certificates; by the names of Go's `ClientAuthType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Not at all.
    None,
    /// Asked for; neither needed nor checked.
    Request,
    /// Needed, whatever it is.
    RequireAny,
    /// Checked if there is one.
    VerifyIfGiven,
    /// Needed and checked.
    RequireAndVerify,
}

impl ClientAuth {
    /// Whether a certificate that is there was checked.
    pub const fn verifies(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }

    /// Whether there is no connection without a certificate.
    pub const fn requires(self) -> bool {
        matches!(self, Self::RequireAny | Self::RequireAndVerify)
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 1.0 or 1.1, which are not spoken.
    Old,
    /// 1.2
    Tls12,
    /// 1.3
    Tls13,
}

/// What a configuration is made of.
pub struct Settings<'a> {
    /// PEM of the server's certificate, and of those that lead to its CA.
    pub certificate: &'a [u8],
    /// PEM of its private key.
    pub key: &'a [u8],
    /// PEM of the CA for clients.
    pub client_ca: Option<&'a [u8]>,
    /// How far clients are asked.
    pub client_auth: ClientAuth,
    /// Names of which a client's certificate has to hold one; `None` asks for none.
    pub allowed_sans: Option<Vec<String>>,
    /// Whether TLS 1.2 is spoken, and whether 1.3 is.
    pub versions: (bool, bool),
    /// Cipher suites of TLS 1.2; those of 1.3 are always there. `None` is all.
    pub suites: Option<Vec<SupportedCipherSuite>>,
    /// Groups for the key exchange, the most wanted first; `None` is all.
    pub curves: Option<Vec<&'static dyn SupportedKxGroup>>,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
}

/// What is to blame for a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The server's certificate.
    Certificate,
    /// Its key.
    Key,
    /// The CA for clients.
    ClientCa,
    /// The choice of cipher suites.
    Suites,
}

/// Why there is no configuration. Holds nothing of a key.
#[derive(Debug)]
pub struct Fault {
    /// The part that is to blame.
    pub blame: Blame,
    /// The reason, in words.
    pub why: String,
}

impl Fault {
    fn new(blame: Blame, why: impl Into<String>) -> Self {
        Self { blame, why: why.into() }
    }
}

/// Every suite by Go's name for it; `None` for those of Go that are not here, all of them weak.
pub const SUITES: &[(&str, Option<SupportedCipherSuite>)] = &[
    ("TLS_AES_128_GCM_SHA256", Some(cipher_suite::TLS13_AES_128_GCM_SHA256)),
    ("TLS_AES_256_GCM_SHA384", Some(cipher_suite::TLS13_AES_256_GCM_SHA384)),
    ("TLS_CHACHA20_POLY1305_SHA256", Some(cipher_suite::TLS13_CHACHA20_POLY1305_SHA256)),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", Some(cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", Some(cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384)),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        Some(cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", Some(cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", Some(cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384)),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", Some(cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256)),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_128_GCM_SHA256", None),
    ("TLS_RSA_WITH_AES_256_GCM_SHA384", None),
    ("TLS_RSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_256_CBC_SHA", None),
];

/// The same of groups.
pub const CURVES: &[(&str, Option<&'static dyn SupportedKxGroup>)] = &[
    ("X25519", Some(kx_group::X25519)),
    ("CurveP256", Some(kx_group::SECP256R1)),
    ("CurveP384", Some(kx_group::SECP384R1)),
    ("CurveP521", None),
];

/// Makes a configuration; takes some hundred microseconds.
///
/// # Errors
/// The first part that is not what it should be.
pub fn server_config(settings: Settings<'_>) -> Result<ServerConfig, Fault> {
    let mut provider = rustls::crypto::ring::default_provider();
    let (mut tls12, tls13) = settings.versions;
    if let Some(suites) = &settings.suites {
        provider.cipher_suites.retain(|suite| suite.version() == &TLS13 || suites.contains(suite));
        let any_is_old = suites.iter().any(|suite| suite.version() == &TLS12);
        if tls12 && !any_is_old && !tls13 {
            return Err(Fault::new(Blame::Suites, "at least one suite of TLS 1.2, since max_version is TLS12"));
        }
        tls12 &= any_is_old;
    }
    if let Some(curves) = settings.curves {
        provider.kx_groups = curves;
    }
    let versions: Vec<&'static SupportedProtocolVersion> =
        [(tls13, &TLS13), (tls12, &TLS12)].into_iter().filter(|(spoken, _)| *spoken).map(|(_, it)| it).collect();
    let provider = Arc::new(provider);
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .map_err(|error| Fault::new(Blame::Suites, error.to_string()))?;
    let certificates = certificates(settings.certificate).map_err(|why| Fault::new(Blame::Certificate, why))?;
    let key = private_key(settings.key).map_err(|why| Fault::new(Blame::Key, why))?;
    let chain = match settings.client_ca {
        None => None,
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in self::certificates(pem).map_err(|why| Fault::new(Blame::ClientCa, why))? {
                roots.add(certificate).map_err(|error| Fault::new(Blame::ClientCa, error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
            Some(verifier.map_err(|error| Fault::new(Blame::ClientCa, error.to_string()))?)
        }
    };
    let builder = match settings.client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        asked => builder.with_client_cert_verifier(Arc::new(ClientVerifier {
            chain: chain.filter(|_| asked.verifies()),
            is_required: asked.requires(),
            allowed_sans: settings.allowed_sans,
            algorithms: provider.signature_verification_algorithms,
        })),
    };
    let mut config = builder.with_single_cert(certificates, key).map_err(|error| match error {
        Error::InconsistentKeys(_) => Fault::new(Blame::Key, "it belongs to another certificate"),
        Error::InvalidCertificate(_) => Fault::new(Blame::Certificate, error.to_string()),
        // What rustls says of a key is of no kind that tells what is in it.
        error => Fault::new(Blame::Key, error.to_string()),
    })?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = if settings.http2 { vec![b"h2".to_vec()] } else { vec![] };
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(config)
}

/// All certificates of a PEM, at least one.
///
/// # Errors
/// Why there are none, in words.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("it holds no certificate".to_owned()),
        Ok(found) => Ok(found),
        Err(_) => Err("it is no PEM, or cut off".to_owned()),
    }
}

/// The private key of a PEM.
///
/// # Errors
/// Why there is none, in words that hold nothing of it.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    if memchr::memmem::find(pem, b"ENCRYPTED").is_some() {
        return Err("it is encrypted".to_owned());
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| "it holds no private key, or is cut off".to_owned())
}

/// Looks at the certificates of clients.
#[derive(Debug)]
struct ClientVerifier {
    /// What checks them against the CA; `None` takes any.
    chain: Option<Arc<dyn ClientCertVerifier>>,
    is_required: bool,
    allowed_sans: Option<Vec<String>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.as_ref().map_or(&[], |chain| chain.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(chain) = &self.chain {
            chain.verify_client_cert(end_entity, intermediates, now)?;
        }
        if let Some(allowed) = &self.allowed_sans {
            let names = alternative_names(end_entity).ok_or(CertificateError::BadEncoding)?;
            if !names.iter().any(|name| allowed.contains(name)) {
                return Err(CertificateError::ApplicationVerificationFailure.into());
            }
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Tags of DER.
const SEQUENCE: u8 = 0x30;
const OBJECT: u8 = 0x06;
const OCTETS: u8 = 0x04;
const EXTENSIONS: u8 = 0xa3;
/// The object identifier of subject alternative names, 2.5.29.17.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];

/// The names of a certificate that can be compared as text: DNS, e-mail, URI and addresses, those as Go writes them.
///
/// `None` if it is no certificate; a webpki that checked it has refused that before.
fn alternative_names(certificate: &[u8]) -> Option<Vec<String>> {
    let (_, signed, _) = element(certificate)?;
    let (_, mut body, _) = element(signed)?;
    let mut names = Vec::new();
    while !body.is_empty() {
        let (tag, content, rest) = element(body)?;
        body = rest;
        if tag != EXTENSIONS {
            continue;
        }
        let (_, mut extensions, _) = element(content)?;
        while !extensions.is_empty() {
            let (tag, mut extension, rest) = element(extensions)?;
            extensions = rest;
            let (kind, name, _) = element(extension)?;
            if tag != SEQUENCE || kind != OBJECT || name != ALTERNATIVE_NAMES {
                continue;
            }
            // Whether it is critical may stand between.
            while !extension.is_empty() {
                let (tag, content, rest) = element(extension)?;
                extension = rest;
                if tag == OCTETS {
                    let (_, mut all, _) = element(content)?;
                    while !all.is_empty() {
                        let (tag, name, rest) = element(all)?;
                        all = rest;
                        names.extend(name_text(tag, name));
                    }
                }
            }
        }
    }
    Some(names)
}

/// The text of one alternative name, if it is of a kind that has one.
fn name_text(tag: u8, content: &[u8]) -> Option<String> {
    match (tag, content.len()) {
        (0x81 | 0x82 | 0x86, _) => std::str::from_utf8(content).ok().map(str::to_owned),
        (0x87, 4) => Some(Ipv4Addr::from(<[u8; 4]>::try_from(content).ok()?).to_string()),
        (0x87, 16) => {
            Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(content).ok()?)).to_canonical().to_string())
        }
        _ => None,
    }
}

/// The tag and content of the element that `der` begins with, and what stands behind it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn every_kind_of_alternative_name_is_read_as_text() {
        let mut params = CertificateParams::new(vec!["scraper.example".to_owned()]).unwrap();
        params.subject_alt_names.extend([
            SanType::IpAddress("10.1.2.3".parse().unwrap()),
            SanType::IpAddress("2001:db8::1".parse().unwrap()),
            SanType::Rfc822Name("ops@example.org".try_into().unwrap()),
            SanType::URI("spiffe://example/prometheus".try_into().unwrap()),
        ]);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(
            alternative_names(certificate.der()).unwrap(),
            ["scraper.example", "10.1.2.3", "2001:db8::1", "ops@example.org", "spiffe://example/prometheus"]
        );
        let without = CertificateParams::new(vec![]).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(alternative_names(without.der()).unwrap(), [""; 0]);
        for cut in 0..certificate.der().len() {
            assert_eq!(alternative_names(&certificate.der()[..cut]), None, "cut at {cut}");
        }
    }
}
