"""What flamingo_table3.md says around its tables."""

EXPLAINED = {
  "(v) single in middle, 2.0B, and (vii) NFNet-F0, 2.9B": """\
2.057B and 2.848B here. 23 blocks of 12 D^2 weights are 1.158B, so 2.0B asks
for a baseline below 3.208B; F6 and F0 differ by 0.367B, so 2.9B asks for one
of at least 3.217B. No baseline meets both; ours is 3.215B.""",
  "(iv) grafting, (vi) MLP and Transformer, T10 (i)": """\
shapes are not in the paper and chosen here: 12 self- and 12 cross-attention
layers; as many weights as the Perceiver's; depths 3 and 12. Their counts
agree because they were chosen to; their times were not.""",
  "(v) block frequency, (iv) vanilla, (viii) LM trained": """\
operations say too little for both removing and adding trainable parameters.
The paper saves 0.038 to 0.042 s a block whatever their number, and pays
0.68 s for training 1.37B more, of which operations explain 0.16 s. A price on
trainable parameters for each data set accounts for all of these rows.""",
  "(ii) round-robin, small": """\
1.30 measured where operations say 1.00. An update has a price of its own:
gradient norm, Adam, and the choice of the new state or the old one, 0.05 s of
the small step's 0.61 s, and a round makes four of them in place of one. At
full size an update's part is smaller; the paper has 0.97.""",
  "T10 (v) vision trained, small": """\
2.04 measured where operations say 1.19. What the encoder's backward pass takes
on a CPU beside its operations was not taken apart.""",
  "(i) data rows": """\
M3W costs less, pairs and video more than their operations. Part of it is that
each set pays for the trainable parameters once. The last hypothesis above
fits better still: M3W's media at about a fifth of the price of others, as if
most of its five slots were padding that is skipped. We compute padding.""",
  "T10 (vii) LAION and CLIP only": """\
the largest error of the fit. One set of 1024 rows is assumed here; with two
batches of 512, hence two gradients, the fit gives 0.47 for the paper's
0.49, but then 1.01 for "M3W, LAION, VTP, CLIP" (0.91) and 1.04 for LAION in
(i) (1.00). The paper does not say.""",
  "(vii) CLIP ViT-L/14": """\
operations and the fit are 5 to 6% high. Fewer pixels are encoded (224) but
more tokens leave the encoder (256 for 100), which the resampler pays for.
Whether the paper drops tokens is not known.""",
  "T10 (v) vision trained": """\
not fitted. On four times the chips operations take a quarter of the time,
gradients' transport does not; times four, that is what the paper prints.""",
  "T10 (vi) co-trained LM": """\
not fitted, and off by a third: MassiveText's batch, length and weight are not
given, and are M3W's here. With four gradients, as if text came with another
set, and no operations for the text, the same prices give 3.22.""",
}
NOTES = """\
# Flamingo's ablations: parameters and relative step times

    {command}

Tables 3 and 10 of arXiv 2204.14198 v2, and "M3W only" of v1. Times and
operations are relative to the baseline's (1.74 s in the paper).

{table}

`*` run by the paper on four times the chips, and multiplied by four.

**ours B** counts the parameters of the config (`jax.eval_shape`). Blocks have
12 D^2 weights, two gates and three norms each; one matrix, 3.1M, brings the
latents to D; the new token's row adds 2,048.

**operations** are of one round, forward and backward over one batch of each
data set, traced from the training loss; matrix products and convolutions,
padding of kernels left out, without rematerialisation. The backward pass goes
through the frozen language model to the trained row of `<EOC>`, but makes no
gradient of frozen weights and does not enter the frozen encoder. Empty media
slots are computed. LTIP and video run at 64 tokens, ALIGN at 32, which the
paper leaves open.

**fit** is the hypothesis "{best}", explained below.

**small** columns, when present, are of a model of the same structure and small
widths: its operations, and the processor time of its real training step, the
shortest of several turns beside the baseline's. Rows that leave the data alone
run on M3W alone. Its proportions are not those of the full size: on few rows
the optimizer and the gradients, which grow with what trains, weigh more. That
may be why the small rows of (iv), (v) and (viii) leave their operations in the
direction in which the paper's do, and why those of (vi), whose extra work is
in large products, cost less than their operations; neither was taken apart.
A row "not run" is one that `--measure` has not come to yet.

## Where the operations are

Shares of the baseline's. `blocks` includes the graft, `lm` the logits.

{shares}

## What the paper's times may be made of

Costs with a price each, none below zero, fitted to all rows that ran on the
usual chips (equal rows once), relative errors least in squares. Operations in
1e15, parameters in 1e9. This is inference from published times, not a
measurement: it says which hypothesis is consistent with all rows at once. A
physical reading of the best of two costs is that the gradients of each data
set are summed over all chips before they are accumulated.

{fits}

## Mismatches

{explained}
"""
