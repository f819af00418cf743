# tcsh completes by the first word alone: type `pipeline` for `python -m pipeline`.
alias pipeline 'python -m pipeline'
