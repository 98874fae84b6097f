//! The tokeniser of uncased BERT models: clean and split the text, then cut words into pieces of the vocabulary.
//!
//! It follows what the `tokenizers` library does with the model's `tokenizer.json` (normaliser and pre-tokeniser
//! "Bert", model "WordPiece"). One difference is on purpose: `[SEP]` and the like in a text are text here, not
//! special tokens, since the text comes from strangers.

mod hash;
mod pieces;
mod split;

pub(crate) use pieces::encode;
