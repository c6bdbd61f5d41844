using NUnit.Framework;
using Ublkback.Backend.Vbds;
using Ublkback.Backend.Xenbus;

namespace Ublkback.Tests.Backend;

/// <summary>
/// Every life of an online vbd: all states that its frontend can write at any moment, also between a decision and its
/// step, connects that succeed or fail, a kernel that takes the device, and restarts of the daemon. The search visits
/// each reachable situation once.
/// </summary>
public sealed class VbdLifeTests
{
    private const int MaxSteps = 8;

    private static readonly XenbusState?[] Written =
    [
        null, XenbusState.Unknown, XenbusState.Initialising, XenbusState.InitWait, XenbusState.Initialised,
        XenbusState.Connected, XenbusState.Closing, XenbusState.Closed,
    ];

    private static VbdView New { get; } = new(
        XenbusState.Initialising, IsOnline: true, XenbusState.Initialising, IsOffered: false, WasOffered: false,
        IsClaimed: false, IsServing: false, HasJournal: false, HasFailed: false, HasImage: true, HasOtherRings: false);

    [Test]
    public void A_frontend_that_starts_again_gets_its_disk_whatever_it_wrote_before()
    {
        HashSet<Situation> reachable = FindReachable(withRestarts: true);
        Assert.That(reachable, Has.Count.GreaterThan(300));
        foreach (Situation situation in reachable)
        {
            VbdView view = Settle(Write(situation.Complete(succeeds: true), XenbusState.Initialising));
            Assert.That(
                view is { Backend: XenbusState.InitWait, IsOffered: true, IsServing: false }, Is.True,
                $"1 after {situation} leads to {view}");
            AssertServed(situation, Settle(Write(view, XenbusState.Initialised)));
        }
    }

    [Test]
    public void A_frontend_that_does_not_wait_for_InitWait_gets_its_disk_too()
    {
        foreach (Situation situation in FindReachable(withRestarts: false))
        {
            VbdView view = Settle(situation.Complete(succeeds: false));
            if (view.Backend != XenbusState.Connected)
                AssertServed(situation, Settle(Write(view, XenbusState.Initialised)));
        }
    }

    private static void AssertServed(Situation before, VbdView view)
    {
        Assert.That(
            view is { Backend: XenbusState.Connected, IsServing: true, HasOtherRings: false }, Is.True,
            $"3 after {before} leads to {view}");
        view = Settle(Write(view, XenbusState.Connected));
        Assert.That(
            view is { Backend: XenbusState.Connected, IsServing: true }, Is.True, $"4 after {before} leads to {view}");
    }

    private static HashSet<Situation> FindReachable(bool withRestarts)
    {
        HashSet<Situation> found = [new Situation(New, VbdAction.Wait)];
        Queue<Situation> open = new(found);
        while (open.TryDequeue(out Situation situation))
        {
            foreach (Situation next in Next(situation, withRestarts))
            {
                Assert.That(
                    next.Action, Is.Not.EqualTo(VbdAction.Forget), $"{situation}: the device is there, and online");
                if (found.Add(next)) open.Enqueue(next);
            }
        }

        return found;
    }

    private static IEnumerable<Situation> Next(Situation situation, bool withRestarts)
    {
        foreach (XenbusState? state in Written) yield return situation with { View = Write(situation.View, state) };
        // It starts anew, and only its last state is seen.
        if (situation.View.IsServing)
        {
            VbdView anew = Write(situation.View, XenbusState.Initialised) with { HasOtherRings = true };
            yield return situation with { View = anew };
        }

        // The kernel's xen-blkback writes 2 when it takes a device.
        if (situation.View.IsServing)
            yield return situation with { View = situation.View with { Backend = XenbusState.InitWait } };
        if (situation.Action == VbdAction.Wait)
        {
            yield return situation with { Action = VbdStateMachine.Decide(situation.View) };
        }
        else
        {
            foreach (bool succeeds in new[] { true, false })
                yield return new Situation(situation.Complete(succeeds), VbdAction.Wait);
        }

        if (withRestarts) yield return new Situation(Restart(situation.View), VbdAction.Wait);
    }

    // Another daemon begins, with the journal of the rings that this one served.
    private static VbdView Restart(VbdView view) => view with
    {
        IsOffered = false,
        WasOffered = false,
        IsServing = false,
        HasOtherRings = false,
        HasFailed = false,
        HasJournal = view.HasJournal || view.IsServing,
    };

    // A failed attempt to take over is not repeated because of what the frontend writes.
    private static VbdView Write(VbdView view, XenbusState? state) => view with
    {
        Frontend = state,
        HasFailed = view.HasFailed && (view.HasJournal || view.Backend == XenbusState.Connected),
    };

    private static VbdView Settle(VbdView view)
    {
        for (int step = 0; step < MaxSteps; step++)
        {
            VbdAction action = VbdStateMachine.Decide(view);
            if (action == VbdAction.Wait) return view;
            view = new Situation(view, action).Complete(succeeds: true);
        }

        throw new AssertionException($"no rest after {MaxSteps} steps: {view}");
    }

    /// <summary>What is in the store and the daemon, and the step that the daemon has decided on.</summary>
    private readonly record struct Situation(VbdView View, VbdAction Action)
    {
        /// <summary>What the steps of <see cref="VbdSteps"/> make of it.</summary>
        public VbdView Complete(bool succeeds)
        {
            VbdView closed = View with { IsServing = false, HasJournal = false, HasOtherRings = false };
            bool hasNoRings = View.Frontend is XenbusState.Initialising or XenbusState.InitWait;
            return Action switch
            {
                VbdAction.Offer => Offered(hasNoRings ? View with { HasJournal = false } : View),
                VbdAction.Connect when succeeds => Served(XenbusState.Connected),
                VbdAction.Connect => View with { Backend = XenbusState.Closing, HasFailed = true },
                VbdAction.Attach when succeeds && View.HasJournal => Served(View.Backend),
                VbdAction.Attach => View with { HasFailed = true },
                VbdAction.Reclaim => View with { Backend = XenbusState.Connected },
                VbdAction.Close => View with { Backend = XenbusState.Closing },
                VbdAction.Disconnect => closed with { Backend = XenbusState.Closed, IsOffered = false },
                VbdAction.Restart => Offered(closed),
                _ => View,
            };
        }

        private static VbdView Offered(VbdView view) => view with
        {
            Backend = XenbusState.InitWait,
            IsOffered = true,
            WasOffered = true,
            HasFailed = false,
        };

        private VbdView Served(XenbusState? backend) =>
            View with
            {
                Backend = backend,
                IsServing = true,
                HasJournal = false,
                HasFailed = false,
                HasOtherRings = false,
            };
    }
}
