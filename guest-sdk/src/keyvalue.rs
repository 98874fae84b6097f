//! What the function keeps from call to call (`wasi:keyvalue`), in the buckets of the manifest's `[keyvalue] allow`. All of
//! its revisions share them; they go when the function is deleted.

use std::fmt;

use crate::raw::wasi::keyvalue::{atomics, batch, store};

/// What the store refused, with the reason. Like every error it answers 500 by `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The manifest does not list the bucket.
    Denied,
    /// A quota, a value that is no number, or a failure.
    Other(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str("the bucket is not in the manifest's [keyvalue] allow"),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Error {}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::NoSuchStore | store::Error::AccessDenied => Self::Denied,
            store::Error::Other(reason) => Self::Other(reason),
        }
    }
}

/// An open bucket. A change is kept when its call returns.
pub struct Bucket(store::Bucket);

impl Bucket {
    /// Opens a bucket.
    ///
    /// # Errors
    /// If the manifest does not list it.
    pub fn open(name: &str) -> Result<Self, Error> {
        Ok(Self(store::open(name)?))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// If the invocation has made too many calls, or the store fails; so do all others.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.get(key)?)
    }

    /// The value of a key, which is text.
    ///
    /// # Errors
    /// Also if it is not UTF-8.
    pub fn text(&self, key: &str) -> Result<Option<String>, Error> {
        let text = |value| String::from_utf8(value).map_err(|_| Error::Other(format!("{key} is not text")));
        self.get(key)?.map(text).transpose()
    }

    /// Sets a key.
    ///
    /// # Errors
    /// Also beyond a quota of the manifest.
    pub fn set(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
        Ok(self.0.set(key, value.as_ref())?)
    }

    /// Removes a key; one that is not there is no error.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn delete(&self, key: &str) -> Result<(), Error> {
        Ok(self.0.delete(key)?)
    }

    /// Whether a key is there.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn exists(&self, key: &str) -> Result<bool, Error> {
        Ok(self.0.exists(key)?)
    }

    /// All keys, in no order; a call for each thousand of them.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn keys(&self) -> Result<Vec<String>, Error> {
        let mut page = self.0.list_keys(None)?;
        let mut keys = page.keys;
        while let Some(cursor) = page.cursor {
            page = self.0.list_keys(Some(cursor))?;
            keys.append(&mut page.keys);
        }
        Ok(keys)
    }

    /// Adds to a number and gives the new one; what is not there counts as 0. The value is its decimal digits.
    ///
    /// # Errors
    /// Also if the value is no number, or would not fit.
    pub fn increment(&self, key: &str, delta: u64) -> Result<u64, Error> {
        Ok(atomics::increment(&self.0, key, delta)?)
    }

    /// The values of keys, in their order, as they were together at one time.
    ///
    /// # Errors
    /// Also for more than 256 keys, or values of more than 4 MiB together.
    pub fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let pairs = batch::get_many(&self.0, keys)?;
        Ok(pairs.into_iter().map(|pair| pair.map(|(_, value)| value)).collect())
    }

    /// Sets all of the keys or none.
    ///
    /// # Errors
    /// As [`set`](Self::set) and [`get_many`](Self::get_many).
    pub fn set_many(&self, pairs: &[(String, Vec<u8>)]) -> Result<(), Error> {
        Ok(batch::set_many(&self.0, pairs)?)
    }

    /// Removes all of the keys.
    ///
    /// # Errors
    /// As [`get_many`](Self::get_many).
    pub fn delete_many(&self, keys: &[String]) -> Result<(), Error> {
        Ok(batch::delete_many(&self.0, keys)?)
    }
}
