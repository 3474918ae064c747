# Tables, figures and the page; every number is traced to score rows.


rule report:
    """Render the report of a run."""
    input:
        scores=run.paths.scores,
        record=run.paths.run_record,
    output:
        run.paths.report / "index.html",
    log:
        run.paths.log("report", "page"),
    conda:
        "../../envs/segbench.yaml"
    params:
        code=code_fingerprint(REPORTING_CODE),
        results=run.paths.root,
        out=run.paths.report,
    shell:
        "python -m segbench report --results {params.results:q} --out {params.out:q} >{log:q} 2>&1"
