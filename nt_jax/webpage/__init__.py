"""The web page of `nt_jax.app`: who uses it, what it does for them, how that looks."""

import os

# The toolkit reads these when it is imported. Where uploads arrive is relative to the server's
# folder, which it works in: that is what browsers are told, and says nothing of the machine.
UPLOADS = "uploads"
os.environ["GRADIO_TEMP_DIR"] = UPLOADS
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
