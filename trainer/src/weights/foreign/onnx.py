"""A TorchScript network becomes ONNX: python onnx.py NETWORK.ts NETWORK.onnx CHANNELS HEIGHT WIDTH

PyTorch writes the file. The new network is run beside the old one, by onnxruntime or else by onnx's own evaluator.
"""

import sys
import warnings

try:
    import numpy
    import onnx
    import torch
except ImportError as problem:
    sys.exit(f"missing: {problem.name}")

warnings.simplefilter("ignore")
source, target, *shape = sys.argv[1:]
network = torch.jit.load(source)
example = lambda rows: torch.rand(rows, *map(int, shape), generator=torch.Generator().manual_seed(0))
torch.onnx.export(
    network,
    (example(2),),
    target,
    dynamo=False,
    opset_version=17,
    input_names=["images"],
    output_names=["logits"],
    dynamic_axes={"images": {0: "images"}, "logits": {0: "images"}},
)
onnx.checker.check_model(target)
images = example(3)
with torch.no_grad():
    expected = network(images).numpy()
try:
    import onnxruntime

    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
except ImportError:
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(target)
difference = numpy.abs(session.run(None, {"images": images.numpy()})[0] - expected).max()
if not difference < 1e-4:
    sys.exit(f"its logits differ by {difference}")
