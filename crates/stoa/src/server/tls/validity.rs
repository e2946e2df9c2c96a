//! Until when a certificate is valid: the one thing about it that rustls does not tell.

use jiff::Timestamp;
use x509_parser::parse_x509_certificate;

/// None for what is no certificate.
pub(super) fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate() {
        for (year, expected) in [(2031, "2031-02-03T00:00:00Z"), (2061, "2061-02-03T00:00:00Z")] {
            let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 2, 3);
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            assert_eq!(not_after(certificate.der()), Some(expected.parse().unwrap()));
            // Torn at any byte it is none, and no panic.
            for end in 0..certificate.der().len() {
                assert_eq!(not_after(&certificate.der()[..end]), None);
            }
        }
        for junk in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x89", &[0x30; 64]] {
            assert_eq!(not_after(junk), None);
        }
    }
}
