use proptest::prelude::*;
use stoa_module::{H1, NewlineInName, Sha256};

#[test]
fn known_hashes() {
    let go_mod = H1::of_go_mod(b"module example.com/m\n");
    assert_eq!(go_mod.to_string(), "h1:flS2VctbRrTv+sBE+VKgxx6hlkMGPVz9MGOmzMYFg3k=");
    assert_eq!(H1::of_go_mod(b"").to_string(), "h1:G7mAYYxgmS0lVkHyy2hEOLQCFB0DlQFTMLWggykrydY=");
    // The order of the files does not matter.
    let files =
        [("go.mod", "module example.com/m\n"), ("m.go", "package m\n")].map(|(name, text)| {
            (format!("example.com/m@v1.0.0/{name}"), *Sha256::of(text.as_bytes()).as_bytes())
        });
    for order in [[0, 1], [1, 0]] {
        let h1 = H1::of_files(order.map(|at| (files[at].0.as_str(), files[at].1)));
        let h1 = h1.expect("no newlines").to_string();
        assert_eq!(h1, "h1:fCHMqo5ggHEQvwcrsN81zr5orRk5lClR36KRHpfUjKg=");
    }
    let alone = H1::of_files([("go.mod", *Sha256::of(b"module example.com/m\n").as_bytes())]);
    assert_eq!(alone, Ok(go_mod));
    assert_eq!(
        H1::of_files([]).expect("no files").to_string(),
        "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    );
    assert_eq!(H1::of_files([("a\nb", [0; 32])]), Err(NewlineInName("a\nb".to_owned())));
    assert_eq!(
        Sha256::of(b"abc").to_string(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[test]
fn texts() {
    let h1 = "h1:flS2VctbRrTv+sBE+VKgxx6hlkMGPVz9MGOmzMYFg3k=";
    assert_eq!(H1::parse(h1).expect("a hash").to_string(), h1);
    for wrong in [
        "",
        "h1:",
        "flS2VctbRrTv+sBE+VKgxx6hlkMGPVz9MGOmzMYFg3k=",
        "h2:flS2VctbRrTv+sBE+VKgxx6hlkMGPVz9MGOmzMYFg3k=",
        "h1:flS2VctbRrTv+sBE+VKgxx6hlkMGPVz9MGOmzMYFg3k",
        "h1:flS2VctbRrTv+sBE+VKgxx6hlkMGPVz9MGOmzMYFg3l=",
        "h1:flS2VctbRrTv-sBE-VKgxx6hlkMGPVz9MGOmzMYFg3k=",
        "h1:flS2VctbRrTv+sBE+VKgxx6hlkMGPVz9MGOmzMYFg3k=\n",
        "h1:flS2VctbRrTv+sBE+VKgxx6hlkMGPVz9MGOmzMYF",
    ] {
        assert!(H1::parse(wrong).is_err(), "{wrong:?}");
    }
    let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(Sha256::parse(hex).expect("a hash").to_string(), hex);
    for wrong in
        ["", &hex[1..], &hex[2..], &hex.to_uppercase(), &format!("{hex}00"), &hex.replace('b', "g")]
    {
        assert!(Sha256::parse(wrong).is_err(), "{wrong:?}");
    }
}

proptest! {
    #[test]
    fn texts_are_read_back(bytes in any::<[u8; 32]>(), text in any::<String>()) {
        let sha256 = Sha256::from_bytes(bytes);
        prop_assert_eq!(Sha256::parse(&sha256.to_string()), Ok(sha256));
        let h1 = H1::of_go_mod(&bytes);
        prop_assert_eq!(H1::parse(&h1.to_string()), Ok(h1));
        let json = serde_json::to_string(&(h1, sha256)).expect("JSON");
        prop_assert_eq!(json.as_str(), format!("[\"{h1}\",\"{sha256}\"]"));
        prop_assert_eq!(serde_json::from_str::<(H1, Sha256)>(&json).expect("hashes"), (h1, sha256));
        let _ = H1::parse(&text);
        let _ = Sha256::parse(&text);
    }
}
