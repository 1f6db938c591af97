//! What the running kernel offers, found without leaving anything behind.
