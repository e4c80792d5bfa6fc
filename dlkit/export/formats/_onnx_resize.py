"""resize_crop.prepare in ONNX operators, bit for bit, in front of an exported network.

ONNX's Resize operator differs by a gray level in some pixels, which changes the predictions of some networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlkit.data.images.resize_crop import LEGACY_MAX_LENGTH_RATIO, MAX_LENGTH_RATIO
from dlkit.export.formats._onnx_proto import messages
from dlkit.specs import ImageSpec

if TYPE_CHECKING:
    from onnx import GraphProto

# resize_crop.prepare in ONNX operators; the far ends of long images are removed first, as there. Only the cropped part
# of the resized image is computed. `side` resizes the last dimension like Pillow: a new pixel is the mean of old ones,
# weighted by a triangle over two new pixels, or over two old ones if these are larger; the weights have 22 bits, which
# are computed byte by byte.
RESIZE = """
<ir_version: 8, opset_import: ["" : 18, "dlkit" : 1]>
resize (uint8[N, any_height, any_width, {C}] images) => (uint8[N, {H}, {W}, {C}] prepared) {{
    wanted = Constant<value = int64[2] {{{H}, {W}}}>()
    target_int = Constant<value = int64[2] {{{target}}}>()
    target = Cast<to = 11>(target_int)
    two = Constant<value = double {{2.0}}>()
    two_int = Constant<value = int64 {{2}}>()
    times = Constant<value = double {{{far_ends}.0}}>()
    axes = Constant<value_ints = [2, 3]>()
    pixels = Transpose<perm = [0, 3, 1, 2]>(images)
    shape = Shape<start = 2, end = 4>(pixels)

    sides = Cast<to = 11>(shape)
    scales = Div(target, sides)
    scale = ReduceMax<keepdims = 1>(scales)
    seen = Div(target, scale)
    far = Mul(seen, times)
    far_up = Ceil(far)
    far_int = Cast<to = 7>(far_up)
    kept = Min(shape, far_int)
    left_out = Sub(shape, kept)
    near = Div(left_out, two_int)
    near_end = Add(near, kept)
    middle = Slice(pixels, near, near_end, axes)

{size}
    spare = Sub(size, wanted)
    spare_double = Cast<to = 11>(spare)
    half = Div(spare_double, two)
    corner = Round(half)
    start = Cast<to = 7>(corner)
    height, width = Split<axis = 0, num_outputs = 2>(size)
    top, left = Split<axis = 0, num_outputs = 2>(start)
    wanted_height, wanted_width = Split<axis = 0, num_outputs = 2>(wanted)
    kept_height, kept_width = Split<axis = 0, num_outputs = 2>(kept)
    twice = Mul(kept_width, two_int)
    beyond = Greater(kept_height, twice)
    lower = Less(height, kept_height)
    tall = And(beyond, lower)
    vertical_first = And(tall, follows_pillow)
    prepared = If(vertical_first) <then_branch = vertical () => (uint8[N, H, W, C] vertically) {{
        standing_v = Transpose<perm = [0, 1, 3, 2]>(middle)
        low_v = dlkit.side(standing_v, height, top, wanted_height)
        lying_v = Transpose<perm = [0, 1, 3, 2]>(low_v)
        narrow_v = dlkit.side(lying_v, width, left, wanted_width)
        vertically = Transpose<perm = [0, 2, 3, 1]>(narrow_v)
    }}, else_branch = horizontal () => (uint8[N, H, W, C] horizontally) {{
        narrow_h = dlkit.side(middle, width, left, wanted_width)
        standing_h = Transpose<perm = [0, 1, 3, 2]>(narrow_h)
        low_h = dlkit.side(standing_h, height, top, wanted_height)
        horizontally = Transpose<perm = [0, 3, 2, 1]>(low_h)
    }}>
}}

<domain: "dlkit", opset_import: ["" : 18]>
side (pixels, length, first, count) => (resized) {{
    none = Constant<value = double {{0.0}}>()
    half = Constant<value = double {{0.5}}>()
    one = Constant<value = double {{1.0}}>()
    new_int = Squeeze(length)
    new = Cast<to = 11>(new_int)
    old_shape = Shape<start = 3, end = 4>(pixels)
    old_int = Squeeze(old_shape)
    old = Cast<to = 11>(old_int)
    scale = Div(old, new)
    last = Add(first, count)
    first_int = Squeeze(first)
    last_int = Squeeze(last)
    first_number = Cast<to = 11>(first_int)
    last_number = Cast<to = 11>(last_int)
    new_numbers = Range(first_number, last_number, one)
    new_middles = Add(new_numbers, half)
    centres = Mul(new_middles, scale)
    reach = Max(scale, one)
    slope = Div(one, reach)

    olds = Constant<value_ints = [0]>()
    news = Constant<value_ints = [1]>()
    old_numbers = Range(none, old, one)
    column = Unsqueeze(old_numbers, news)
    offsets = Sub(column, centres)
    distances = Add(offsets, half)
    fallen = Mul(distances, slope)
    depths = Abs(fallen)
    heights = Sub(one, depths)
    triangles = Max(heights, none)
    totals = ReduceSum(triangles, olds)
    shares = Div(triangles, totals)
    bits = Constant<value = double {{4194304.0}}>()
    large = Mul(shares, bits)
    rounding = Add(large, half)
    weights = Floor(rounding)

    byte = Constant<value = double {{256.0}}>()
    upper_parts = Div(weights, byte)
    upper = Floor(upper_parts)
    lowest = Mod<fmod = 1>(weights, byte)
    highest_parts = Div(upper, byte)
    highest = Floor(highest_parts)
    central = Mod<fmod = 1>(upper, byte)
    highest_byte = Cast<to = 2>(highest)
    central_byte = Cast<to = 2>(central)
    lowest_byte = Cast<to = 2>(lowest)
    highest_sum = MatMulInteger(pixels, highest_byte)
    central_sum = MatMulInteger(pixels, central_byte)
    lowest_sum = MatMulInteger(pixels, lowest_byte)
    byte_int = Constant<value = int32 {{256}}>()
    highest_shifted = Mul(highest_sum, byte_int)
    upper_sum = Add(highest_shifted, central_sum)
    upper_shifted = Mul(upper_sum, byte_int)
    sum = Add(upper_shifted, lowest_sum)
    half_int = Constant<value = int32 {{2097152}}>()
    rounded_sum = Add(sum, half_int)
    bits_int = Constant<value = int32 {{4194304}}>()
    mean = Div(rounded_sum, bits_int)
    resized = Cast<to = 2>(mean)
}}
"""

# The longer side of the resized image is truncated.
SIZE = """
    follows_pillow = Constant<value = bool {1}>()
    tall_side, wide_side = Split<axis = 0, num_outputs = 2>(kept)
    across = Concat<axis = 0>(wide_side, tall_side)
    areas = Mul(target_int, across)
    area = ReduceMax<keepdims = 1>(areas)
    size = Div(area, across)
"""
# The longer side is rounded, and images of the network's size are unchanged.
LEGACY_SIZE = """
    follows_pillow = Constant<value = bool {0}>()
    kept_sides = Cast<to = 11>(kept)
    kept_scales = Div(target, kept_sides)
    kept_scale = ReduceMax<keepdims = 1>(kept_scales)
    scaled = Mul(kept_sides, kept_scale)
    rounded = Round(scaled)
    rounded_int = Cast<to = 7>(rounded)
    cover = Max(rounded_int, target_int)
    differs = Sub(shape, wanted)
    distances = Abs(differs)
    distance = ReduceMax<keepdims = 1>(distances)
    zero = Sub(distance, distance)
    same = Equal(distance, zero)
    size = Where(same, wanted, cover)
"""


def prepend_resize(graph: GraphProto, spec: ImageSpec) -> None:
    """Insert resizing and cropping before the graph's first node."""
    from onnx import inliner, parser

    target = ", ".join(str(round(side / spec.crop)) for side in (spec.height, spec.width))
    size, far_ends = (LEGACY_SIZE, LEGACY_MAX_LENGTH_RATIO) if spec.legacy_resize else (SIZE, MAX_LENGTH_RATIO)
    sides = {"C": spec.channels, "H": spec.height, "W": spec.width}
    model = parser.parse_model(RESIZE.format(**sides, target=target, size=size, far_ends=far_ends))
    front = inliner.inline_local_functions(model).graph
    for node in graph.node:
        node.input[:] = ["prepared" if name == "images" else name for name in node.input]
    prefixed = _prefix_names(front)
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*prefixed.node, *rest])
    graph.input[0].CopyFrom(prefixed.input[0])


def _prefix_names(front: GraphProto) -> GraphProto:
    """Prefix the inner names with "resize.", so that they differ from the network's."""
    for message in messages(front):
        if message.DESCRIPTOR.name == "NodeProto":
            for names in (message.input, message.output):
                names[:] = [_prefix(name) for name in names]
        elif message.DESCRIPTOR.name == "GraphProto" and message is not front:
            for value in message.output:
                value.name = _prefix(value.name)
    return front


def _prefix(name: str) -> str:
    return name if name in ("", "images", "prepared") else f"resize.{name}"
