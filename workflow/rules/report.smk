# Tables, figures and the page; every number is traced to score rows.


rule report:
    """Render the report of a run."""
    input:
        request=lambda wildcards: run.request_report(),
        scores=run.paths.scores,
        record=run.paths.run_record,
    output:
        run.paths.rendered,
    log:
        run.paths.log("report", "page"),
    conda:
        LIGHT_ENVIRONMENT
    params:
        results=run.paths.root,
        out=run.paths.report,
    shell:
        "python -m segbench report --results {params.results:q} --out {params.out:q} --record {output:q} >{log:q} 2>&1"
