//! Keystore files: those of others are read, and ours are whole, private and never replaced.

#![cfg(feature = "keystore")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use alloy_primitives::{address, hex};
use chiral_chain::keystore::{self, KdfCost, KeystoreError};
use chiral_chain::{DEV_ACCOUNTS, PrivateKey};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The key of both vectors of the Web3 Secret Storage definition; so is the password.
const VECTOR_KEY: &str = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";
const VECTOR_PASSWORD: &str = "testpassword";

fn pbkdf2_vector() -> Value {
    json!({
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": { "iv": "6087dab2f9fdbbfaddc31a909735c1e6" },
            "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
            "kdf": "pbkdf2",
            "kdfparams": {
                "c": 262144, "dklen": 32, "prf": "hmac-sha256",
                "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
            },
            "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
        },
        "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
        "version": 3,
    })
}

fn scrypt_vector() -> Value {
    json!({
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": { "iv": "83dbcc02d8ccb40e466191a123791e0e" },
            "ciphertext": "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
            "kdf": "scrypt",
            "kdfparams": {
                "dklen": 32, "n": 262144, "p": 8, "r": 1,
                "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19",
            },
            "mac": "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097",
        },
        "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
        "version": 3,
    })
}

fn decrypt(file: &Value, password: &str) -> Result<PrivateKey, KeystoreError> {
    keystore::decrypt(file.to_string().as_bytes(), password)
}

fn light() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wallet.json");
    (dir, path)
}

#[test]
fn the_published_vectors_are_read() {
    for mut vector in [pbkdf2_vector(), scrypt_vector()] {
        let key = decrypt(&vector, VECTOR_PASSWORD).unwrap();
        assert_eq!(hex::encode(*key.to_secret_bytes()), VECTOR_KEY);
        // As geth writes it, with the wallet in plain text.
        vector["address"] = json!("008aeeda4d805471df9b2a5b0f38a0c3bcba786b");
        let key = decrypt(&vector, VECTOR_PASSWORD).unwrap();
        assert_eq!(
            key.address(),
            address!("008aeeda4d805471df9b2a5b0f38a0c3bcba786b")
        );
    }
}

#[test]
fn a_new_key_comes_back_with_its_password_only() {
    let (_dir, path) = light();
    let key = keystore::create(&path, "correct horse", KdfCost::Light).unwrap();
    assert_eq!(keystore::address(&path).unwrap(), key.address());
    let again = keystore::read(&path, "correct horse").unwrap();
    assert_eq!(again.to_secret_bytes(), key.to_secret_bytes());
    for wrong in ["", "correct horse ", "Correct horse"] {
        let error = keystore::read(&path, wrong).unwrap_err();
        assert!(matches!(error, KeystoreError::Password), "{error:?}");
    }
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains(&hex::encode(*key.to_secret_bytes())));
}

#[test]
fn an_imported_key_is_the_same_wallet() {
    let (_dir, path) = light();
    let account = DEV_ACCOUNTS[3];
    let key = keystore::import_hex(&path, account.private_key, "", KdfCost::Light).unwrap();
    assert_eq!(key.address(), account.address);
    assert_eq!(
        keystore::read(&path, "").unwrap().address(),
        account.address
    );
    let file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(file["address"], hex::encode(account.address));
    assert_eq!(file["id"].as_str().unwrap().len(), 36);
    let error = keystore::import_hex(&path, "secret", "", KdfCost::Light).unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn what_is_there_is_never_replaced() {
    let (dir, path) = light();
    fs::write(&path, "mine").unwrap();
    let error = keystore::create(&path, "", KdfCost::Light).unwrap_err();
    assert!(matches!(error, KeystoreError::Exists { .. }), "{error:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "and nothing else is left"
    );
}

#[test]
fn of_many_at_once_one_wins() {
    let (dir, path) = light();
    let made: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| keystore::create(&path, "", KdfCost::Light).ok()))
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(made.len(), 1);
    assert_eq!(
        keystore::read(&path, "").unwrap().address(),
        made[0].address()
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/folder/wallet.json");
    keystore::create(&path, "", KdfCost::Light).unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
}

#[test]
fn what_is_not_there_or_not_a_keystore_is_told() {
    let (_dir, path) = light();
    let error = keystore::read(&path, "").unwrap_err();
    assert!(
        error.to_string().contains("create or import one first"),
        "{error}"
    );
    fs::write(&path, " ".repeat(100_000)).unwrap();
    let error = keystore::read(&path, "").unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
    for text in [
        "",
        "{}",
        "[]",
        "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d",
    ] {
        let error = keystore::decrypt(text.as_bytes(), "").unwrap_err();
        assert!(matches!(error, KeystoreError::Format { .. }), "{error:?}");
    }
}

#[test]
fn fields_out_of_bounds_are_refused_before_any_work() {
    let changed = |pointer: &str, to: Value| {
        let mut file = scrypt_vector();
        *file.pointer_mut(pointer).unwrap() = to;
        decrypt(&file, VECTOR_PASSWORD).unwrap_err()
    };
    for (pointer, to) in [
        ("/version", json!(1)),
        ("/crypto/cipher", json!("aes-128-cbc")),
        ("/crypto/kdf", json!("pbkdf2")),
        ("/crypto/cipherparams/iv", json!("83")),
        ("/crypto/ciphertext", json!("")),
        ("/crypto/mac", json!("zz")),
        ("/crypto/kdfparams/dklen", json!(16)),
        ("/crypto/kdfparams/n", json!(0)),
        ("/crypto/kdfparams/n", json!(1)),
        ("/crypto/kdfparams/n", json!(262_143)),
        ("/crypto/kdfparams/r", json!(0)),
        ("/crypto/kdfparams/p", json!(0)),
        ("/crypto/kdfparams/n", json!(-1)),
    ] {
        let error = changed(pointer, to.clone());
        assert!(
            matches!(error, KeystoreError::Format { .. }),
            "{pointer} {to}: {error:?}"
        );
    }
    for (pointer, to) in [
        ("/crypto/kdfparams/n", json!(1_u64 << 63)),
        ("/crypto/kdfparams/n", json!(1 << 24)),
        ("/crypto/kdfparams/r", json!(u32::MAX)),
        ("/crypto/kdfparams/p", json!(u32::MAX)),
    ] {
        let error = changed(pointer, to.clone());
        assert!(
            matches!(error, KeystoreError::Cost),
            "{pointer} {to}: {error:?}"
        );
    }
    let mut file = pbkdf2_vector();
    file["crypto"]["kdfparams"]["c"] = json!(u32::MAX);
    assert!(matches!(decrypt(&file, ""), Err(KeystoreError::Cost)));
    file["crypto"]["kdfparams"]["c"] = json!(0);
    assert!(matches!(
        decrypt(&file, ""),
        Err(KeystoreError::Format { .. })
    ));
    file["crypto"]["kdfparams"] = json!({ "c": 1, "dklen": 32, "prf": "md5", "salt": "" });
    assert!(matches!(
        decrypt(&file, ""),
        Err(KeystoreError::Format { .. })
    ));
}

#[test]
fn a_foreign_address_in_the_file_is_noticed() {
    let text = keystore::encrypt(&DEV_ACCOUNTS[0].signer(), "", KdfCost::Light).unwrap();
    let mut file: Value = serde_json::from_str(&text).unwrap();
    file["address"] = json!(DEV_ACCOUNTS[1].address);
    let error = decrypt(&file, "").unwrap_err();
    assert!(matches!(error, KeystoreError::Address { .. }), "{error:?}");
}

proptest! {
    #[test]
    fn arbitrary_texts_are_no_keystores(text in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(keystore::decrypt(&text, "").is_err());
    }
}
