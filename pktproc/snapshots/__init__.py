"""Facts kept: the store, the recorder that fills it, and its reading back."""
