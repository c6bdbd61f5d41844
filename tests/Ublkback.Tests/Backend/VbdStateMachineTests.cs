using NUnit.Framework;
using Ublkback.Backend.Vbds;
using Ublkback.Backend.Xenbus;
using static Ublkback.Backend.Vbds.VbdAction;

namespace Ublkback.Tests.Backend;

public sealed class VbdStateMachineTests
{
    // backend, frontend (0: unknown, −1: gone), online, offered, serving → action
    [TestCase(-1, 4, true, true, true, Forget, TestName = "the backend directory is gone")]
    [TestCase(1, 1, true, false, false, Offer, TestName = "a new device")]
    [TestCase(1, 4, true, false, false, Offer, TestName = "mini-os was faster")]
    [TestCase(2, 1, true, false, false, Offer, TestName = "the daemon starts after somebody else offered")]
    [TestCase(1, 1, true, true, false, Forget, TestName = "another device in the place of ours")]
    [TestCase(2, 1, true, true, false, Wait, TestName = "the frontend has not come yet")]
    [TestCase(2, 3, true, true, false, Connect, TestName = "the frontend has its ring")]
    [TestCase(2, 4, true, true, false, Connect, TestName = "mini-os goes from 1 to 4")]
    [TestCase(4, 4, true, true, true, Wait, TestName = "in service")]
    [TestCase(4, 3, true, true, true, Wait, TestName = "the frontend has not seen our 4 yet")]
    [TestCase(2, 4, true, true, true, Reclaim, TestName = "xen-blkback set our state back")]
    [TestCase(4, 4, true, false, false, Attach, TestName = "the daemon before us served it")]
    [TestCase(4, 5, true, true, true, Close, TestName = "the guest lets go")]
    [TestCase(5, 6, true, true, true, Disconnect, TestName = "the guest has let go")]
    [TestCase(4, 6, true, true, true, Disconnect, TestName = "the guest's 5 was missed")]
    [TestCase(6, 1, true, false, false, Offer, TestName = "pvgrub made way for a kernel")]
    [TestCase(5, 1, true, true, true, Restart, TestName = "pvgrub's 6 was missed")]
    [TestCase(4, 1, true, true, true, Restart, TestName = "the frontend starts again without closing")]
    [TestCase(4, 1, true, false, false, Offer, TestName = "the frontend starts again while no daemon runs")]
    [TestCase(6, 2, true, true, false, Offer, TestName = "a frontend in InitWait has no ring")]
    [TestCase(6, 3, true, true, false, Offer, TestName = "closed, and the frontend has new rings at once")]
    [TestCase(5, 3, true, true, true, Restart, TestName = "closing, and the frontend has new rings at once")]
    [TestCase(5, 3, true, true, false, Offer, TestName = "never connected, and the frontend has new rings")]
    [TestCase(5, 4, true, false, false, Wait, TestName = "without a journal the disk is left alone")]
    [TestCase(6, 6, true, false, false, Wait, TestName = "closed, and the device stays")]
    [TestCase(6, 6, false, false, false, Wait, TestName = "closed, and about to be removed")]
    [TestCase(6, 1, false, false, false, Wait, TestName = "no way back once offline")]
    [TestCase(5, 4, false, true, true, Wait, TestName = "the toolstack detaches, the guest still has it")]
    [TestCase(5, 5, false, true, true, Wait, TestName = "the toolstack detaches, the guest is closing")]
    [TestCase(5, 6, false, true, true, Disconnect, TestName = "the toolstack detaches, the guest has let go")]
    [TestCase(5, 1, false, true, false, Disconnect, TestName = "the toolstack detaches what no guest ever used")]
    [TestCase(5, 3, false, true, false, Wait, TestName = "the toolstack detaches while a guest is coming")]
    [TestCase(4, -1, true, true, true, Disconnect, TestName = "forced: the frontend's directory went first")]
    [TestCase(5, -1, false, true, true, Disconnect, TestName = "forced, and offline")]
    [TestCase(6, -1, false, false, false, Wait, TestName = "forced, and done")]
    [TestCase(4, 0, true, true, true, Wait, TestName = "a state that is none changes nothing")]
    public void Decides(int backend, int frontend, bool online, bool offered, bool serving, VbdAction expected) =>
        Assert.That(VbdStateMachine.Decide(View(backend, frontend, online, offered, serving)), Is.EqualTo(expected));

    [TestCase(2, 1, false, Offer)]
    [TestCase(2, 3, false, Offer)]
    [TestCase(2, 4, true, Reclaim)]
    [TestCase(4, 4, true, Reclaim)]
    [TestCase(5, 4, true, Reclaim)]
    public void What_the_kernel_claims_is_taken_back(int backend, int frontend, bool serving, VbdAction expected) =>
        Assert.That(
            VbdStateMachine.Decide(View(backend, frontend, true, true, serving) with { IsClaimed = true }),
            Is.EqualTo(expected));

    [TestCase(4, 5, Attach)]
    [TestCase(5, 4, Attach)]
    [TestCase(5, 5, Attach)]
    [TestCase(5, 6, Disconnect)]
    [TestCase(2, 5, Close)]
    public void A_guest_that_lets_go_of_a_dead_daemons_disk_gets_its_answers_first(
        int backend, int frontend, VbdAction expected) =>
        Assert.That(
            VbdStateMachine.Decide(View(backend, frontend, false, false, false) with { HasJournal = true }),
            Is.EqualTo(expected));

    [TestCase(2)]
    [TestCase(4)]
    public void What_failed_is_not_tried_again_and_again(int backend) =>
        Assert.That(
            VbdStateMachine.Decide(View(backend, 3, true, true, false) with { HasFailed = true }), Is.EqualTo(Wait));

    [TestCase(1)]
    [TestCase(6)]
    [TestCase(-1)]
    public void A_closed_device_that_goes_releases_its_image(int frontend)
    {
        VbdView view = View(6, frontend, false, true, false);
        Assert.That(VbdStateMachine.Decide(view with { HasImage = true }), Is.EqualTo(Release));
        Assert.That(VbdStateMachine.Decide(view), Is.EqualTo(Wait));
        Assert.That(VbdStateMachine.Decide(view with { HasImage = true, IsOnline = true }), Is.Not.EqualTo(Release));
    }

    [Test]
    public void Never_closes_on_its_own(
        [Values(1, 2, 4)] int backend, [Values(1, 2, 3, 4)] int frontend, [Values] bool offered,
        [Values] bool serving) =>
        Assert.That(
            VbdStateMachine.Decide(View(backend, frontend, true, offered, serving)),
            Is.Not.EqualTo(Close).And.Not.EqualTo(Disconnect), "blkfront would take the disk for dead");

    private static VbdView View(int backend, int frontend, bool online, bool offered, bool serving) => new(
        backend < 0 ? null : (XenbusState)backend, online, frontend < 0 ? null : (XenbusState)frontend,
        offered, offered, IsClaimed: false, serving, HasJournal: false, HasFailed: false, HasImage: false,
        HasOtherRings: false);
}
