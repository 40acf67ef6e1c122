import time, pytest
from scalesweep.specs import Method
CASES=[(m,z,r) for m in Method for z,r in ((0,1),(2,2),(3,2)) if not (m is Method.qlora and z==3)]
@pytest.mark.parametrize("method,zero,ranks", CASES)
def test_try(lab, tmp_path, method, zero, ranks):
    t=time.time()
    e = lab.stage(tmp_path, method, num_ranks=ranks, zero_stage=zero).attempt()
    print("\n", method, zero, ranks, e.codes, round(time.time()-t,1), list(e.losses.values()))
    print(e.log)
    if set(e.codes)=={0}: print(list(e.hashes), e.rows[0].get("grad_norm"), e.summary)
