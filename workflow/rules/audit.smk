# Nothing is preprocessed or trained before the split is known to be free of leaks.


rule audit:
    """Compare names, patients and images across the split; a leak that config does not accept stops the run."""
    input:
        request=lambda wildcards: checked(run.request_audit),
        manifests=[run.paths.manifest(task) for task in run.task_names],
        splits=run.paths.splits,
    output:
        run.paths.audit,
    log:
        run.paths.log("audit", "findings"),
    benchmark:
        run.paths.benchmark("audit", "findings")
    conda:
        LIGHT_ENVIRONMENT
    params:
        config=run.paths.config,
    shell:
        "python -m segbench audit --config {params.config:q} --out {output:q} 2>&1 | tee {log:q}"
