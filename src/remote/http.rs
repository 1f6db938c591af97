//! The cluster over HTTPS.
