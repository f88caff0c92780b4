# Cross-entropy, alone and fused with the language-model head, and the optimizer. Included by core.pyx.

cdef class LossOps(AttentionOps):

    def cross_entropy_forward(self, logits, targets):
        """(losses, log_sum), each (...): -log softmax(logits)[target] and the log-sum-exp of each row of logits (...,vocab).

        A negative target is ignored: its loss is 0.
        """
        logits, rows, width = _rows("logits", logits)
        targets = _ids("targets", targets, width, True, logits.shape[:-1])
        losses, log_sum = _new(*targets.shape), _new(*targets.shape)
        cdef size_t n = rows, vocab = width
        cdef float *pl = _data(losses)
        cdef float *ps = _data(log_sum)
        cdef const float *px = _data(logits)
        cdef const int32_t *pt = _int_data(targets)
        with _running, nogil:
            llm_cross_entropy_forward(self.e, pl, ps, px, pt, n, vocab)
        self._check()
        return losses, log_sum

    def cross_entropy_backward(self, logits, log_sum, targets, float scale, *, dlogits=None):
        """dlogits (...,vocab): scale * (softmax - onehot), 0 where the target is negative. A mean has scale 1 / count."""
        logits, rows, width = _rows("logits", logits)
        targets = _ids("targets", targets, width, True, logits.shape[:-1])
        log_sum = _f32("log_sum", log_sum, targets.shape)
        dlogits, acc = _gradient("dlogits", dlogits, logits.shape)
        cdef size_t n = rows, vocab = width
        cdef float *pd = _data(dlogits)
        cdef const float *ps = _data(log_sum)
        cdef const float *px = _data(logits)
        cdef const int32_t *pt = _int_data(targets)
        cdef bint add = acc
        with _running, nogil:
            llm_cross_entropy_backward(self.e, pd, add, scale, px, ps, pt, n, vocab)
        self._check()
        return dlogits

    def lm_head_loss_forward(self, x, w, targets):
        """(losses, log_sum), each (...), with logits = x (...,d) @ w (vocab,d)^T that are never held whole.

        Bit for bit what gemm and cross_entropy_forward give.
        """
        x, rows, width = _rows("x", x)
        w = _head_weight(w, width)
        targets = _ids("targets", targets, w.shape[0], True, x.shape[:-1])
        losses, log_sum = _new(*targets.shape), _new(*targets.shape)
        cdef size_t n = rows, d = width, vocab = w.shape[0]
        cdef float *pl = _data(losses)
        cdef float *ps = _data(log_sum)
        cdef const float *px = _data(x)
        cdef const float *pw = _data(w)
        cdef const int32_t *pt = _int_data(targets)
        with _running, nogil:
            llm_lm_head_loss_forward(self.e, pl, ps, px, pw, pt, n, d, vocab)
        self._check()
        return losses, log_sum

    def lm_head_loss_backward(self, x, w, log_sum, targets, float scale, *, dx=None, dw=None):
        """(dx (...,d), dw (vocab,d)) of scale * the sum of the losses."""
        x, rows, width = _rows("x", x)
        w = _head_weight(w, width)
        targets = _ids("targets", targets, w.shape[0], True, x.shape[:-1])
        log_sum = _f32("log_sum", log_sum, targets.shape)
        dx, acc_x = _gradient("dx", dx, x.shape)
        dw, acc_w = _gradient("dw", dw, w.shape)
        cdef size_t n = rows, d = width, vocab = w.shape[0]
        cdef float *pdx = NULL if dx is None else _data(dx)
        cdef float *pdw = NULL if dw is None else _data(dw)
        cdef const float *px = _data(x)
        cdef const float *pw = _data(w)
        cdef const float *ps = _data(log_sum)
        cdef const int32_t *pt = _int_data(targets)
        cdef bint ax = acc_x, aw = acc_w
        with _running, nogil:
            llm_lm_head_loss_backward(self.e, pdx, ax, pdw, aw, scale, px, pw, ps, pt, n, d, vocab)
        self._check()
        return dx, dw

    def adamw_step(self, w, m, v, grad, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01, step,
                   float grad_scale=1.0):
        """(w, m, v) after one AdamW step (Loshchilov & Hutter 2019, algorithm 2), all of one shape; step counts from 1.

        The gradient is multiplied by grad_scale first, which is how clipping acts.
        """
        w = np.array(_f32("w", w))
        m = np.array(_f32("m", m, w.shape))
        v = np.array(_f32("v", v, w.shape))
        grad = _f32("grad", grad, w.shape)
        if step < 1:
            raise ValueError(f"step {step} is less than 1")
        cdef llm_adamw o
        o.lr, o.beta1, o.beta2, o.eps, o.weight_decay = lr, beta1, beta2, eps, weight_decay
        o.step, o.grad_scale = step, grad_scale
        cdef float *pw = _data(w)
        cdef float *pm = _data(m)
        cdef float *pv = _data(v)
        cdef const float *pg = _data(grad)
        cdef size_t n = w.size
        with _running, nogil:
            llm_adamw_step(self.e, pw, pm, pv, pg, &o, n)
        self._check()
        return w, m, v


def _head_weight(w, width):
    w = _f32("w", w)
    if w.ndim != 2 or w.shape[1] != width or w.shape[0] == 0:
        raise ValueError(f"w has shape {w.shape}, expected (vocab, {width})")
    return w
