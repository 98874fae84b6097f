;; A core module where a component is expected: it exports neither `_start` nor `wasi:http/incoming-handler`.
(module
  (memory (export "memory") 1)
  (func (export "add") (param i32 i32) (result i32)
    local.get 0
    local.get 1
    i32.add))
