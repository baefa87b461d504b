"""What mkdocs calls while it builds the site: pages may link to the measurements, which lie outside docs/.

On GitHub `../benchmarks/results/x.md` leads to the file. The site takes those files in, and the links follow.
"""

from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
TAKEN = ("benchmarks/results/*", "launchers/kubernetes/job.yaml", "launchers/slurm/train.sbatch")


def on_files(files: Files, config) -> Files:
    """Add what pages link to outside docs/, under its own path."""
    for pattern in TAKEN:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page, config, files) -> str:
    """Let links between docs/ and the files that were taken in lead where the site has them."""
    taken = "/" in page.file.src_uri
    return markdown.replace("](../../docs/", "](../../") if taken else markdown.replace("](../", "](")
