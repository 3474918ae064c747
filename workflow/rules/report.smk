# Tables, figures and the page; every number is traced to score rows.


rule report:
    """Render the report of a run."""
    input:
        request=lambda wildcards: checked(run.request_report),
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


# Snakemake deletes the outputs of a job before it runs and writes into output folders, so these are copies.
localrules:
    shown,


rule shown:
    """Copy what `snakemake --report` shows: the page, the tables and the figures."""
    input:
        run.paths.rendered,
    output:
        page=report(
            graph.literal(run.paths.shown / "index.html"),
            caption="../report/page.rst",
            category="Page",
            labels={"run": run.config.run, "content": "the whole page"},
        ),
        tables=report(
            directory(graph.literal(run.paths.shown / "tables")),
            patterns=["{table}.csv"],
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        figures=report(
            directory(graph.literal(run.paths.shown / "figures")),
            patterns=["{figure}.svg"],
            caption="../report/figures.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        run.paths.log("report", "shown"),
    conda:
        LIGHT_ENVIRONMENT
    params:
        report=run.paths.report,
    shell:
        "{{ mkdir -p {output.tables:q} {output.figures:q}; cp {params.report:q}/index.html {output.page:q};"
        " find {params.report:q}/tables -name '*.csv' -exec cp -t {output.tables:q} '{{}}' +;"
        " find {params.report:q}/figures -name '*.svg' -exec cp -t {output.figures:q} '{{}}' +; }} >{log:q} 2>&1"
