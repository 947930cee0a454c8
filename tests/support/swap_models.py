"""The timm and Hugging Face classifiers of the swap tests, built without weights and without network.

PYTHONPATH=.:tests python tests/support/swap_models.py      prints the tables of docs/swap-in.md
"""

from __future__ import annotations

import re
from collections import defaultdict
from importlib.metadata import version
from typing import Any

import timm
import torch
import transformers
from torch import Tensor, nn
from transformers.models.auto import modeling_auto

from nc_tools.heads import LinearHead
from nc_tools.surgery import find_head, swap_head
from support.torchvision_models import NAMES, K, without_memory

# In place of a module's first architecture where that is much slower to run on the meta device.
SMALLER = {
    "cait": "cait_xxs24_224",
    "coat": "coat_lite_tiny",
    "convit": "convit_tiny",
    "davit": "davit_tiny",
    "efficientformer_v2": "efficientformerv2_s0",
    "eva": "eva02_tiny_patch14_224",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny",
    "hiera": "hiera_tiny_224",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "mambaout": "mambaout_femto",
    "mvitv2": "mvitv2_tiny",
    "nest": "nest_tiny",
    "nextvit": "nextvit_small",
    "pvt_v2": "pvt_v2_b0",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "resnest": "resnest14d",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tnt": "tnt_s_patch16_224",
    "tresnet": "tresnet_m",
    "twins": "twins_svt_small",
    "vision_transformer": "vit_tiny_patch16_224",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vitamin": "vitamin_small_224",
    "vovnet": "ese_vovnet19b_dw",
    "xcit": "xcit_nano_12_p16_224",
}
# Their recurrent layers take half a minute on the meta device.
ON_A_CPU = {"sequencer2d_s"}
# In addition to one of each module: architectures with another classifier than the first of their module.
ADDITIONAL = ["deit_tiny_distilled_patch16_224", "pit_ti_distilled_224", "iformer_m_distilled", "efficientvim_m1_dist"]
ADDITIONAL += ["caformer_s18", "resnetv2_50", "sequencer2d_s", "vit_base_patch16_siglip_224", "test_vit3"]
# Classifiers with several heads, or with a convolution as head: find_head raises.
UNSUPPORTED = {"crossvit", "dla", "dpn", "efficientformer", "efficientformer_v2", "efficientvim", "levit", "repvit"}
UNSUPPORTED |= {"resnetv2", "swiftformer", "volo"}
UNSUPPORTED |= {
    "deit_tiny_distilled_patch16_224",
    "pit_ti_distilled_224",
    "iformer_m_distilled",
    "efficientvim_m1_dist",
}
UNSUPPORTED |= {"resnetv2_50"}


def timm_architectures() -> dict[str, str]:
    """Return {architecture: module}: the first architecture of each module, and a few more."""
    first: dict[str, str] = {}
    for name in timm.list_models():
        first.setdefault(timm.model_entrypoint(name).__module__.rpartition(".")[2], name)
    first.pop("sequencer", None)
    available = set(timm.list_models())
    chosen = {SMALLER[m] if SMALLER.get(m) in available else name: m for m, name in first.items()}
    return chosen | {name: name for name in ADDITIONAL if name in available}


def timm_model(name: str) -> nn.Module:
    with torch.device("cpu" if name in ON_A_CPU else "meta"):
        return timm.create_model(name, pretrained=False, num_classes=K)  # type: ignore[no-any-return]


# Configurations for models whose defaults do not work. Small and on a CPU, if the values matter or meta is not enough.
TINY: dict[str, dict[str, Any]] = {
    "ImageGPTForImageClassification": {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 40, "n_positions": 16},
    "PerceiverForImageClassificationLearned": {"num_latents": 4, "d_latents": 16, "image_size": 8},
    "PerceiverForImageClassificationFourier": {"num_latents": 4, "d_latents": 16, "num_cross_attention_heads": 1},
    "PerceiverForImageClassificationConvProcessing": {
        "num_latents": 4,
        "d_latents": 16,
        "num_cross_attention_heads": 1,
    },
}
TINY["PerceiverForImageClassificationLearned"] |= {"num_blocks": 1, "num_self_attends_per_block": 1}
TINY["PerceiverForImageClassificationFourier"] |= {"num_blocks": 1, "num_self_attends_per_block": 1}
TINY["PerceiverForImageClassificationConvProcessing"] |= {"num_blocks": 1, "num_self_attends_per_block": 1}
_SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
_SMALL |= {"vocab_size": 60}
TINY["Siglip2ForImageClassification"] = {"vision_config": _SMALL | {"num_patches": 4}, "text_config": _SMALL}
# Needs another package (natten).
NOT_BUILT = {"DinatForImageClassification"}
# Two averaged heads; logits under another name; a language model that answers with one of two words.
HF_UNSUPPORTED = {
    "DeiTForImageClassificationWithTeacher": ["cls_classifier", "distillation_classifier"],
    "LevitForImageClassificationWithTeacher": ["classifier.linear", "classifier_distill.linear"],
    "SwiftFormerForImageClassification": ["head", "dist_head"],
    "PPLCNetForImageClassification": ["head"],
    "ShieldGemma2ForImageClassification": [],
}


def hf_image_classes() -> dict[str, str]:
    """Return {class: family} of the image classifiers that transformers names."""
    classes: dict[str, str] = {}
    for family, names in modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.items():
        classes |= dict.fromkeys([names] if isinstance(names, str) else names, family)
    return {name: family for name, family in classes.items() if name not in NOT_BUILT}


def hf_image_model(name: str) -> nn.Module:
    cls = getattr(transformers, name)
    config = cls.config_class(**TINY.get(name, {}))
    config.num_labels = K
    with torch.device("cpu" if name in TINY else "meta"):
        return cls(config)  # type: ignore[no-any-return]


def hf_example(name: str) -> dict[str, Tensor] | None:
    """Return an input for the models that accept none of the example inputs."""
    if name == "Siglip2ForImageClassification":
        shapes, mask = torch.full((1, 2), 2), torch.ones(1, 4, dtype=torch.int64)
        return {"pixel_values": torch.zeros(1, 4, 768), "pixel_attention_mask": mask, "spatial_shapes": shapes}
    if name in {"PerceiverForImageClassificationFourier", "PerceiverForImageClassificationConvProcessing"}:
        return {"inputs": torch.zeros(1, 3, 224, 224)}
    return None


HF_TEXT: dict[str, dict[str, Any]] = {
    "BertForSequenceClassification": _SMALL,
    "DistilBertForSequenceClassification": {"dim": 16, "hidden_dim": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 60},
    "DebertaV2ForSequenceClassification": _SMALL,
    "ModernBertForSequenceClassification": _SMALL
    | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
    "RobertaForSequenceClassification": _SMALL,
    "ElectraForSequenceClassification": _SMALL | {"embedding_size": 16},
    "T5ForSequenceClassification": {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2},
    "GPT2ForSequenceClassification": {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 60},
    "LlamaForSequenceClassification": _SMALL,
    "XLNetForSequenceClassification": {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16, "vocab_size": 60},
}
HF_TEXT["T5ForSequenceClassification"] |= {"vocab_size": 60, "decoder_start_token_id": 0}
PER_TOKEN = {"GPT2ForSequenceClassification", "LlamaForSequenceClassification"}


def hf_text_model(name: str) -> nn.Module:
    cls = getattr(transformers, name)
    torch.manual_seed(0)
    config = cls.config_class(**HF_TEXT[name])
    config.num_labels = K
    return cls(config)  # type: ignore[no-any-return]


def _table(title: str, rows: dict[str, list[str]]) -> None:
    print(f"\n### {title}\n\n| head | models |\n|---|---|")
    for where, names in sorted(rows.items(), key=lambda row: ("error" in row[0], -len(row[1]), row[0])):
        print(f"| {where} | {', '.join(sorted(set(names)))} |")


def _where(model: nn.Module, example: Any = None) -> str:
    try:
        where = find_head(model, example=example)
        swap_head(model, LinearHead, num_classes=7, example=example)
    except ValueError as error:
        layers = [*dict.fromkeys(re.findall(r"'([\w.]+)'", str(error)))]
        conv = " (a convolution)" if "convolution" in str(error) else ""
        return f"**error**: {', '.join(f'`{n}`' for n in layers[:4]) or 'no layer returns the logits'}{conv}"
    return f"`{where}`"


def main() -> None:
    """Print the tables."""
    transformers.logging.set_verbosity_error()
    rows: dict[str, list[str]] = defaultdict(list)
    for name in NAMES:
        rows[_where(without_memory(name))].append(re.match("[a-z]+", name)[0])  # type: ignore[index]
    _table(f"torchvision {version('torchvision')}, {len(NAMES)} classifiers", rows)
    rows = defaultdict(list)
    chosen = timm_architectures()
    for name, module in chosen.items():
        rows[_where(timm_model(name))].append(module)
    _table(f"timm {version('timm')}, {len(chosen)} architectures", rows)
    rows = defaultdict(list)
    for name in hf_image_classes():
        rows[_where(hf_image_model(name), hf_example(name))].append(name.replace("ForImageClassification", ""))
    _table(f"transformers {version('transformers')}, images, {len(hf_image_classes())} classes", rows)
    rows = defaultdict(list)
    for name in HF_TEXT:
        token = ", on every token" if name in PER_TOKEN else ""
        rows[_where(hf_text_model(name)) + token].append(name.replace("ForSequenceClassification", ""))
    _table("transformers, text", rows)


if __name__ == "__main__":
    main()
