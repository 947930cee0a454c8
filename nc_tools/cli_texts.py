"""The texts that `nc-tools COMMAND --help` shows."""

EXAMPLES_TEXT = """examples:
  nc-tools choose photos --model timm:resnet18 --weights pretrained    which head and loss, and the model to take home
  nc-tools choose embeddings.npz                                       the same on features of your own
  nc-tools compare outputs/long_tail                           print the table, write outputs/long_tail/report
  nc-tools compare outputs/long_tail --baseline linear_la      the same, with another baseline
  nc-tools compare outputs/first outputs/second                arms of two folders in one table
  nc-tools compare outputs/long_tail --watch                   the table again whenever a run has ended
  nc-tools data photos                                         say which classes and which split a folder has
  nc-tools measure --model torchvision:resnet18 --weights model.safetensors --data imagefolder:birds
  nc-tools suspects birds.npz                                  list the labels that are likely wrong
  nc-tools suspects photos --model timm:resnet18 --weights pretrained --part all
  nc-tools gain photos --model timm:resnet18 --weights pretrained --corrections decisions.csv
  nc-tools predict outputs/long_tail/runs/etf-s0-d0-final-1a2b3c4d photos --out predictions.csv
  nc-tools export outputs/long_tail/runs/etf-s0-d0-final-1a2b3c4d --to onnx --out exports/etf
  nc-tools ui outputs/long_tail                                show its runs in MLflow
  nc-tools sync outputs/long_tail --tracking-uri http://127.0.0.1:5000

`nc-tools COMMAND --help` lists the options of a command.
"""
CHOOSE_TEXT = """Choose the head and the loss for your images on a pretrained model that is not trained further.

Features are extracted once and cached. All arms are tuned and trained on them side by side; the arm that is best on the
hold-outs is confirmed on the test set, which is read once. The command ends with the arm to use, how sure that is, the
classes that gain and lose, and the model, in OUT/model. DATA is a folder of images with one folder for each class, a
file of embeddings (.npz, .safetensors, .parquet), or a data source as in the recipes, such as cifar10.
"""
COMPARE_TEXT = """Compare methods (arms) from one or more sources: print a table and write a report.

Each arm is compared with the baseline in pairs of runs with the same seed. Damaged and failed runs are listed too.
An arm that several folders have is one arm if its settings are the same and no seed has other images; otherwise the
folder's name is added to it, as in "linear (first)". The folders must decide by the same metric; other differences in
rules, tuning and data are among the cautions. Runs of recipes, `nc-tools choose` and nc_tools.track are also found in
MLflow, by experiment or run ID: records on this machine are read where they are, others are downloaded.
"""
DATA_TEXT = """Say what a folder, table or other source is taken for: classes, split, groups, what is left out.

Nothing is trained. A recipe reads the same source in the same way with --data SOURCE.
"""
MEASURE_TEXT = """Measure the neural collapse of a trained model: print a table and write a report.

The model can be one that nc_tools trained or any PyTorch classifier.
"""
SUSPECTS_TEXT = """List the labels of a data set that are likely wrong, from features of a pretrained network.

DATA is a file of embeddings (.npz, .safetensors or .parquet with features (N, D) and labels (N,), and perhaps ids,
split and classes), or images with --model and --weights, whose features are extracted once and cached. No trained
model, no true label and no tuning is needed. Writes suspects.csv (the most suspect label first, with the class that is
suggested), classes.csv (how many labels of each class may be wrong), transition.csv, and for images review.html.
"""
GAIN_TEXT = """Measure what correcting labels gains, on fixed features and the same test set.

One method is tuned and trained on the given labels, on those that your decisions correct, with as many random changes,
and with the suspects left out; each is compared with the given labels in pairs of seeds. Without --corrections only
leaving out is compared. With --clean the random arm is what checking as many random images would correct; without true
labels it makes the same changes to random other images. The decisions that were compared are in OUT/decisions.
"""
PREDICT_TEXT = """Predict the classes of all images in a folder with the model of a finished run, and write a CSV file.

Probabilities are scaled with the run's temperature. The column `unusual` is the share of the run's test images that
look more like the training images: close to 1 for an image of none of the classes. Unreadable files are listed.
"""
EXPORT_TEXT = """Export the model of a finished run, with a model card, its preprocessing and its class names.

onnx and torch-export need no nc_tools to run. safetensors is for `nc-tools predict` and load_run. mlflow writes an
MLflow model without pickles: `mlflow models serve -m FOLDER/model --env-manager local`.
"""
SYNC_TEXT = """Upload the runs of an output folder to MLflow, unless MLflow already has them.

Recipes and `nc_tools.tracking.track` upload runs by themselves. Use this command if they could not reach the server.
"""
UI_TEXT = """Show the runs of an output folder, and their comparison, in MLflow: print the addresses and open a browser.

MLflow is started on the store of the folder, for this machine only; Ctrl-C ends it. With the address of an MLflow
server, only the pages there are shown.
"""
