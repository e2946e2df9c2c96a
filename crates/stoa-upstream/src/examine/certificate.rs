//! What a certificate says about itself.

use jiff::Timestamp;
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Name};

/// Of a name; longer ones are cut.
const MAX_NAME: usize = 60;

/// Products that look into TLS, by what they call their authorities. In lower case, each the beginning of a word.
const MIDDLEBOXES: &[(&str, &str)] = &[
    ("mitmproxy", "mitmproxy"),
    ("zscaler", "Zscaler"),
    ("fortinet", "Fortinet"),
    ("fortigate", "Fortinet"),
    ("palo alto", "Palo Alto Networks"),
    ("netskope", "Netskope"),
    ("goskope", "Netskope"),
    ("blue coat", "Blue Coat"),
    ("bluecoat", "Blue Coat"),
    ("symantec web", "Symantec"),
    ("sophos", "Sophos"),
    ("cisco umbrella", "Cisco Umbrella"),
    ("check point", "Check Point"),
    ("squid", "Squid"),
    ("charles proxy", "Charles"),
    ("do not trust fiddler", "Fiddler"),
    ("fiddler", "Fiddler"),
    ("portswigger", "Burp"),
    ("burp", "Burp"),
    ("kaspersky", "Kaspersky"),
    ("eset ssl", "ESET"),
    ("avast", "Avast"),
];

/// The parts of a certificate that a person asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    /// Short names: the common name, or else what there is.
    pub(super) subject: String,
    pub(super) issuer: String,
    pub(super) not_before: Option<Timestamp>,
    pub(super) not_after: Option<Timestamp>,
    /// Whether it names itself as its issuer.
    pub(super) is_own_issuer: bool,
    /// The product whose authority its issuer's name names.
    pub(super) middlebox: Option<&'static str>,
}

/// None for what is no certificate.
pub(super) fn read(der: &[u8]) -> Option<Certificate> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let time = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    let validity = certificate.validity();
    Some(Certificate {
        subject: short_name(certificate.subject()),
        issuer: short_name(certificate.issuer()),
        not_before: time(validity.not_before),
        not_after: time(validity.not_after),
        is_own_issuer: certificate.subject().as_raw() == certificate.issuer().as_raw(),
        middlebox: middlebox(&whole_name(certificate.issuer())),
    })
}

fn short_name(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().find_map(|it| it.as_str().ok());
    let organization = name.iter_organization().find_map(|it| it.as_str().ok());
    let any = || name.iter_attributes().find_map(|it| it.as_str().ok());
    let text = common.or(organization).or_else(any).unwrap_or("(no name)");
    super::line(text).chars().take(MAX_NAME).collect()
}

fn whole_name(name: &X509Name<'_>) -> String {
    let parts = name.iter_attributes().filter_map(|it| it.as_str().ok());
    parts.collect::<Vec<_>>().join(" ")
}

fn middlebox(issuer: &str) -> Option<&'static str> {
    let mut words = String::new();
    for c in issuer.chars() {
        words.push(if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' });
    }
    let words = format!(" {words}");
    let found = MIDDLEBOXES.iter().find(|(name, _)| words.contains(&format!(" {name}")));
    found.map(|(_, product)| *product)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;

    fn made(common: Option<&str>, organization: Option<&str>) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["host.test".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in
            [(DnType::CommonName, common), (DnType::OrganizationName, organization)]
        {
            if let Some(value) = value {
                params.distinguished_name.push(kind, value);
            }
        }
        params.not_before = date_time_ymd(2020, 1, 2);
        params.not_after = date_time_ymd(2030, 3, 4);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn what_is_read() {
        let read = |common, organization| read(&made(common, organization)).unwrap();
        let certificate = read(Some("host.test"), Some("Corp"));
        assert_eq!((&*certificate.subject, &*certificate.issuer), ("host.test", "host.test"));
        assert_eq!(certificate.not_before.unwrap().to_string(), "2020-01-02T00:00:00Z");
        assert_eq!(certificate.not_after.unwrap().to_string(), "2030-03-04T00:00:00Z");
        assert!(certificate.is_own_issuer);
        assert_eq!(read(None, Some("Corp")).subject, "Corp");
        assert_eq!(read(None, None).subject, "(no name)");
        assert_eq!(read(Some("a\u{1b}[31m\nb"), None).subject, "a [31m b");
        assert_eq!(read(Some(&"x".repeat(500)), None).subject.len(), MAX_NAME);
        assert_eq!(super::read(b""), None);
        assert_eq!(super::read(b"not a certificate"), None);
    }

    #[test]
    fn middleboxes() {
        let check = |issuer: &str, expected| assert_eq!(middlebox(issuer), expected, "{issuer}");
        check("mitmproxy", Some("mitmproxy"));
        check("Zscaler Intermediate Root CA (zscalerthree.net) Zscaler Inc.", Some("Zscaler"));
        check("FG100ETK18000000 Fortinet", Some("Fortinet"));
        check("DO_NOT_TRUST_FiddlerRoot", Some("Fiddler"));
        check("PortSwigger CA", Some("Burp"));
        check("ca.corp.goskope.com Netskope Inc", Some("Netskope"));
        check("ESET SSL Filter CA", Some("ESET"));
        check("Cisco Umbrella Root CA", Some("Cisco Umbrella"));
        check("GTS Root R1 Google Trust Services LLC", None);
        check("Reset Services Palo", None);
        check("", None);
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_makes_it_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(),
            is_cut in any::<bool>(),
        ) {
            use std::sync::OnceLock;
            static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
            let mut der = WHOLE.get_or_init(|| made(Some("host.test"), Some("Corp"))).clone();
            for (at, byte) in changes {
                let at = at.index(der.len());
                der[at] = byte;
            }
            if is_cut {
                der.truncate(cut.index(der.len()));
            }
            if let Some(certificate) = read(&der) {
                let names = [&certificate.subject, &certificate.issuer];
                prop_assert!(names.iter().all(|name| name.chars().count() <= MAX_NAME));
                prop_assert!(names.iter().all(|name| !name.contains(char::is_control)));
            }
        }
    }
}
