# Complete `python -m pipeline ...`. Every other command line of Python is completed as zsh does otherwise.
_inpaint_foundry() {
  if [[ $words[2] == -m && $words[3] == pipeline && $CURRENT -gt 3 ]]; then
    words=(pipeline "${words[@]:3}")
    ((CURRENT -= 2))
    _shtab_pipeline
  elif ((${+functions[_python]})) || autoload +X _python 2> /dev/null; then
    _python
  else
    _default
  fi
}
compdef _inpaint_foundry python python3
