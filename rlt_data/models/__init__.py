"""Model names, identities and loading."""
