//! What minisign 0.11 signed, and what strangers make of it.

use super::*;

const PROGRAM: &[u8] = b"a small program\n";
const KEY: &str = "untrusted comment: minisign public key 9F00C0692894F11A
RWQa8ZQoacAAn+Dqub/c8p5wKKSgXtyHPFEsc/g62u+eOxee+AFD+8KA
";
const OTHER_KEY: &str = "untrusted comment: minisign public key C715EAFC6B18254E
RWROJRhr/OoVxz6QXj66+M3peuAt4ZdXPz1c2+IHVPmGxkXUdt/a2+U4
";
const HASHED_SIGNATURE: &str = "untrusted comment: signature from minisign secret key
RUQa8ZQoacAAn1kwee/OxKK31VQnBrVcWKawMsbrncZUVUY7dm4bbJ+x88Y7ouzIQh3JXXqqpqGU4k1mi660FEQ8AGmb6YSEbwQ=
trusted comment: lowtide 0.2.0 x86_64
6xy7tsdkQJGWc2yVMa5JrNoLO3o1O6TbUGAW7x3d4ZkC3QunQKHHh/u4Mh15IWn8454ciI9CIZHMwqRhA1qqBQ==
";
const PLAIN_SIGNATURE: &str = "untrusted comment: signature from minisign secret key
RWQa8ZQoacAAnzAcbIiaLhYgV5VAKwDKYrs91COZcs7La4Ozeqg1gtUx9h5+XHX7QWw3qcq5z9RTPMH3htymPRPtzoaKVJtOGQw=
trusted comment: older form
zWPfT6B5sZVQD1TD75RHexhO/4ekmI8nuWE8y2SrUtnjFBSryQG4/hGgir5Eb6VwCaKo+qYoQipsOi0nzDk6DA==
";

fn keys(text: &str) -> Vec<PublicKey> {
    PublicKey::read_all(text).expect("keys")
}

#[test]
fn both_forms_of_a_true_signature_give_their_comment() {
    let keys = keys(KEY);
    let comment = verify(&keys, HASHED_SIGNATURE, PROGRAM);
    assert_eq!(comment, Ok("lowtide 0.2.0 x86_64"));
    assert_eq!(verify(&keys, PLAIN_SIGNATURE, PROGRAM), Ok("older form"));
    let windows = HASHED_SIGNATURE.replace('\n', "\r\n");
    assert_eq!(
        verify(&keys, &windows, PROGRAM),
        Ok("lowtide 0.2.0 x86_64"),
        "lines of another system"
    );
}

#[test]
fn a_file_may_hold_the_old_key_and_the_new_one() {
    let keys = keys(&format!("{OTHER_KEY}\n{KEY}"));
    assert_eq!(keys.len(), 2);
    assert!(verify(&keys, HASHED_SIGNATURE, PROGRAM).is_ok());
}

#[test]
fn every_changed_byte_of_the_program_is_noticed() {
    let keys = keys(KEY);
    for at in 0..PROGRAM.len() {
        let mut changed = PROGRAM.to_vec();
        changed[at] ^= 1;
        for signature in [HASHED_SIGNATURE, PLAIN_SIGNATURE] {
            assert_eq!(
                verify(&keys, signature, &changed),
                Err(Bad::Content),
                "{at}"
            );
        }
        let cut = &PROGRAM[..at];
        assert_eq!(verify(&keys, HASHED_SIGNATURE, cut), Err(Bad::Content));
    }
}

#[test]
fn no_change_of_a_signature_is_taken() {
    let keys = keys(KEY);
    let bytes = HASHED_SIGNATURE.as_bytes();
    // The untrusted comment is nobody's word.
    let start = HASHED_SIGNATURE.find('\n').expect("lines") + 1;
    for at in start..bytes.len() - 1 {
        let mut changed = bytes.to_vec();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let text = String::from_utf8(changed).expect("ASCII");
        assert!(verify(&keys, &text, PROGRAM).is_err(), "{at}: {text}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let keys = keys(KEY);
    let line = |number: usize| HASHED_SIGNATURE.lines().nth(number - 1).expect("line");
    let lines = |last: usize| {
        HASHED_SIGNATURE
            .lines()
            .take(last)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let other = KEY.replace("RWQa", "RWQb");
    let table = [
        (String::new(), "line 1: the file is empty"),
        ("PK\u{3}\u{4}".into(), "line 1: no \"untrusted comment:\""),
        (lines(1), "line 2: the signature is missing"),
        (lines(2), "line 3: the trusted comment is missing"),
        (
            lines(3),
            "line 4: the signature of the trusted comment is missing",
        ),
        (HASHED_SIGNATURE.replace(line(2), "%"), "line 2: not base64"),
        (
            HASHED_SIGNATURE.replace(line(2), "RUQa"),
            "line 2: not 74 bytes of base64",
        ),
        (
            HASHED_SIGNATURE.replace("RUQa", "RUUa"),
            "line 2: an algorithm that is not known here",
        ),
        (
            HASHED_SIGNATURE.replace("0.2.0", "9.9.9"),
            "its trusted comment was changed",
        ),
        (
            HASHED_SIGNATURE.replace(line(2), PLAIN_SIGNATURE.lines().nth(1).expect("line")),
            "its trusted comment was changed",
        ),
    ];
    for (text, expected) in table {
        let bad = verify(&keys, &text, PROGRAM).expect_err(expected);
        assert_eq!(bad.to_string(), expected);
    }
    let bad = verify(&self::keys(OTHER_KEY), HASHED_SIGNATURE, PROGRAM).expect_err("another's");
    assert_eq!(
        bad.to_string(),
        "made with key 9F00C0692894F11A, which is none of the trusted ones"
    );
    assert!(verify(&self::keys(&other), HASHED_SIGNATURE, PROGRAM).is_err());
}

#[test]
fn files_that_hold_no_key_are_named_with_the_line() {
    for (text, expected) in [
        ("", "holds no key"),
        ("untrusted comment: nothing else\n", "holds no key"),
        (
            "untrusted comment: k\nhello\n",
            "line 2: not the base64 of a minisign public key",
        ),
        (
            "untrusted comment: k\nRWQa8ZQoacAA\n",
            "line 2: not a minisign public key",
        ),
        (HASHED_SIGNATURE, "line 2: not a minisign public key"),
    ] {
        let bad = PublicKey::read_all(text).expect_err(expected);
        assert_eq!(bad.to_string(), expected, "{text}");
    }
}
