//! How to reach the cluster and as whom: kubeconfig files.
