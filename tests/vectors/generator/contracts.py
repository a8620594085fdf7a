"""What a batch norm must refuse, and what it must not."""
from .vector_file import VectorFile


def contracts_file():
    file = VectorFile("gen_contracts", "must raise / must not raise", "must_mention: substrings of the message")

    def case(id, mode, expect, shape=(), mention=(), tags=("core",), note=None, convention="pytorch", features=3,
             **config):
        file.add("g_" + id, "batch_norm_contract", None, tags, mode=mode, x_shape=list(shape), expect=expect,
                 must_mention=list(mention) if expect == "error" else None, note=note,
                 config={"convention": convention, "num_features": features, **config})

    case("features0", "construct", "error", features=0, mention=["0"])
    for eps, expect in ((-1, "error"), ("nan", "error"), (0, "ok")):
        case(f"eps_{eps}", "construct", expect, mention=["eps"], eps=eps)
    for m, expect in ((2, "error"), (-0.1, "error"), (0, "ok"), (None, "ok")):
        case(f"momentum_{m}", "construct", expect, mention=["momentum"], momentum=m)
    for m, expect in ((1.5, "error"), ("nan", "error"), (0, "ok")):
        case(f"keras_momentum_{m}", "construct", expect, convention="keras", momentum=m)
    case("axis0", "construct", "error", mention=["channel_axis"], channel_axis=0)
    case("axis_-3", "construct", "error", channel_axis=-3, tags=("policy",))
    case("bare", "construct", "ok", affine=False, track_running_stats=False)
    # one value per channel
    case("b1_train", "train", "error", (1, 3), ["1"])
    case("b1_sequence_train", "train", "error", (1, 3, 1), ["1"])
    case("b1_last_train", "train", "error", (1, 1, 3), ["1"], channel_axis=-1)
    case("b1_track0_train", "train", "error", (1, 3), ["1"], track_running_stats=False)
    case("b1_track0_eval", "eval", "error", (1, 3), ["1"], track_running_stats=False,
         note="without running statistics eval, too, uses the batch's")
    case("b1_cumulative_train", "train", "error", (1, 3), ["1"], momentum=None, note="the counter must not move")
    case("b1_eval", "eval", "ok", (1, 3))
    case("b1_keras_train", "train", "ok", (1, 3), convention="keras")
    # channels
    for mode in ("train", "eval"):
        case(f"channels_2d_{mode}", mode, "error", (10, 5), ["3", "5"])
        case(f"channels_track0_affine0_{mode}", mode, "error", (10, 5, 4, 4), ["3", "5"], affine=False,
             track_running_stats=False, note="PyTorch 1.13 takes it")
        case(f"channels_keras_{mode}", mode, "error", (10, 8, 8, 5), ["3", "5"], convention="keras")
    case("channels_last_data", "train", "error", (10, 8, 7, 3), ["3", "8", "channel"],
         note="the data look channels-last: the message should say so")
    case("channels_first_data", "train", "error", (10, 3, 8, 7), ["3", "7", "channel"], channel_axis=-1)
    case("sequence_not_transposed", "train", "error", (4, 7, 3), ["3", "7"])
    case("axis2", "train", "ok", (2, 4, 3), channel_axis=2)
    # ranks
    case("rank6", "train", "error", (2, 3, 1, 1, 1, 2), ["6"])
    case("rank1_eval", "eval", "error", (3,), ["1"])
    for shape in ((2, 3, 2), (2, 3, 1, 2, 1)):
        case(f"rank{len(shape)}", "train", "ok", shape)
    case("empty_batch_train", "train", "error", (0, 3), ["0"])
    case("load_same", "load", "ok")
    case("load_wrong_size_keras", "load", "error", mention=["3", "4"], convention="keras")
    case("load_wrong_size_affine0", "load", "error", mention=["3", "4"], affine=False)
    return file
