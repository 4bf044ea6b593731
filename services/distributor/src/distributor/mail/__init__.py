"""Mail: from a dispatch to bytes (`composer`), over the relay (`smtp`), to an outcome (`sending`, `replies`)."""
