# %% [markdown]
# # A digit, read and proved
#
# Needs a service (`zkinferd serve`) and this package. Run it as a script, `python examples/digit.py`, or cell by cell in an editor
# that knows `# %%`. The address is that of `ZKINFER_ADDRESS`, else the service's default.

# %%
import dataclasses
import os
from pathlib import Path

import numpy as np

import zkinfer

MODELS = Path(__file__).resolve().parents[3] / "models"
CONTEXT = "order 4711"

# %% [markdown]
# ## Load a digit
# 784 pixels from 0 to 255; the network reads pixel / 255.

# %%
pixels = np.load(MODELS / "mnist" / "test-images.npy")[0]
label = int(np.load(MODELS / "mnist" / "test-labels.npy")[0])
image = pixels.astype(np.float32).reshape(1, 784) / 255

for row in pixels.reshape(28, 28)[::2]:
    print("".join(" .:-=+*#%@"[shade * 9 // 255] for shade in row.astype(int)).rstrip())

# %% [markdown]
# ## Register the network
# Once: its weights are committed, and it is proved that they are in range. Later runs find it.

# %%
client = zkinfer.Client(os.environ.get("ZKINFER_ADDRESS", "http://127.0.0.1:50061"))


def show(progress: zkinfer.Progress) -> None:
    """One line a step."""
    eta = "" if progress.eta_seconds is None else f", {progress.eta_seconds:.1f} s left"
    print(f"{progress.fraction:6.1%}  {progress.phase}{eta}")


try:
    model = client.model("digits")
except zkinfer.NotFoundError:
    network = MODELS / "mlp-mnist" / "model_int8_qdq.onnx"
    model = client.register_model(network, model_id="digits", weights="private", progress=show)

key = model.key()
print(f"{model.name}: {key.layers} layers, commitment {key.model_commitment.hex()[:16]}...")

# %% [markdown]
# ## Prove
# The image stays hidden: the statement holds a commitment to it, under a salt that only we know.

# %%
salt = zkinfer.random_words()
proof = client.prove(model, image, input_privacy="private", input_salt=salt, context=CONTEXT, progress=show)
print(f"a proof of {len(proof.bytes)} bytes that the network read a {proof.output.argmax()}; the label says {label}")
print("real outputs:", np.round(proof.output, 2))

# %% [markdown]
# ## Verify
# No service is asked. The key comes from whoever registered the model: compare its commitment with one that you trust.

# %%
verified = zkinfer.verify(proof, key=key, context=CONTEXT, model_commitment=key.model_commitment)
print("accepted:", verified.output_integers)
zkinfer.verify(proof, context=CONTEXT, expected_input=image, input_salt=salt)
print("accepted, with the input opened")

# %% [markdown]
# ## Lies are refused

# %%
changed = bytearray(proof.bytes)
changed[len(changed) // 2] ^= 1
lies = {
    "a changed proof": dict(proof=dataclasses.replace(proof, bytes=bytes(changed)), context=CONTEXT),
    "another use": dict(proof=proof, context="order 4712"),
    "another image": dict(proof=proof, context=CONTEXT, expected_input=1 - image, input_salt=salt),
    "another model": dict(proof=proof, context=CONTEXT, model_commitment=bytes(32)),
}
refusals = {}
for lie, arguments in lies.items():
    try:
        zkinfer.verify(**arguments)
        refusals[lie] = ""
    except zkinfer.VerifyError as error:
        refusals[lie] = error.reason
    print(f"{lie}: refused, {refusals[lie]}")

# %%
client.close()
