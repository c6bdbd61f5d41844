using Ublkback.Backend.Xenbus;

namespace Ublkback.Backend.Vbds;

/// <summary>What a vbd knows when it decides; read anew each time, since watch events coalesce.</summary>
/// <param name="Backend">Our state node; null when the backend directory is gone.</param>
/// <param name="IsOnline">True if the toolstack wants the device to stay (<c>online</c>).</param>
/// <param name="Frontend">The frontend's state node; null when its directory is gone.</param>
/// <param name="IsOffered">True if the features were offered since the device was new or closed.</param>
/// <param name="WasOffered">True if the features were ever offered.</param>
/// <param name="IsClaimed">True if the kernel's xen-blkback has taken the device.</param>
/// <param name="IsServing">True if there is a connection to the frontend.</param>
/// <param name="HasJournal">True if an earlier daemon left a journal of rings that this one does not serve.</param>
/// <param name="HasFailed">True if connecting to this frontend failed, and is not to be tried again now.</param>
/// <param name="HasImage">True if the image is open or being opened.</param>
/// <param name="HasOtherRings">True if the frontend names other rings than those that are served.</param>
internal readonly record struct VbdView(
    XenbusState? Backend, bool IsOnline, XenbusState? Frontend, bool IsOffered, bool WasOffered,
    bool IsClaimed, bool IsServing, bool HasJournal, bool HasFailed, bool HasImage, bool HasOtherRings);

/// <summary>The next step of a vbd.</summary>
public enum VbdAction
{
    /// <summary>Nothing: wait for a change.</summary>
    Wait,

    /// <summary>Publish our features and go to InitWait.</summary>
    Offer,

    /// <summary>Read the frontend's rings, map and bind them, and go to Connected.</summary>
    Connect,

    /// <summary>Take over a ring that a daemon before us served.</summary>
    Attach,

    /// <summary>The kernel's xen-blkback took a device that we serve and changed its nodes: restore them.</summary>
    Reclaim,

    /// <summary>Follow the frontend into Closing.</summary>
    Close,

    /// <summary>Complete the requests in flight, release the rings, and go to Closed.</summary>
    Disconnect,

    /// <summary>The frontend started anew without closing: release the old rings, and offer again.</summary>
    Restart,

    /// <summary>The toolstack removes a device that is closed: close its image.</summary>
    Release,

    /// <summary>The device is gone: release everything.</summary>
    Forget,
}

/// <summary>
/// The life of a vbd as one table. Rows are tried from the top; the first that fits decides. Pure.
/// </summary>
/// <remarks>
/// Numbers are xenbus states. "Serving" means that there is a connection to the frontend.
/// <code>
/// backend  frontend    and                     → action
/// gone     any                                 → Forget
/// 1        any         offered before          → Forget       another device was made in the place of ours
/// 6        any         not serving, not online,
///                      image open              → Release      the guest closed it first, and now it is detached
/// any      gone        serving or backend ≠ 6  → Disconnect   forced removal: the frontend's directory goes first
/// 5        6, 1, 2     not online              → Disconnect   the toolstack detaches; 1 and 2 never had a ring
/// 1, 2     1, 2, 3, 4  not serving, and not
///                      offered or claimed      → Offer        never gated on the hotplug script
/// 2, 4, 5  3, 4        online, serving, but
///                      other rings             → Restart      the frontend started anew, and its 1 was missed
/// 2        3, 4        serving                 → Reclaim
/// 4        3, 4        serving, claimed        → Reclaim
/// 5        4           serving, online         → Reclaim      only the kernel writes this
/// 2        3, 4        not failed              → Connect      mini-os goes from 1 straight to 4
/// 4        3, 4        not serving, not failed → Attach
/// 4        5           journal, not failed     → Attach       a guest that disconnects waits for its answers first
/// 5        4, 5        journal, not failed     → Attach       likewise
/// 2, 4     5                                   → Close
/// 1..5     6                                   → Disconnect
/// 2        1, 2        online, serving         → Restart      only the kernel writes 2 while there is a ring
/// 4, 5, 6  1, 2        online, serving         → Restart      the guest rebooted inside its domain, or pvgrub made
/// 4, 5, 6  1, 2        online                  → Offer        way for a kernel, and now there is no ring
/// 5        3           online, serving         → Restart      the guest closed, and has new rings already
/// 6        3, 4        online, not serving     → Offer        new rings, from a frontend that did not wait for 2
/// 5        3, 4        online, not serving,
///                      not failed, and offered
///                      by this daemon          → Offer        likewise
/// otherwise                                    → Wait
/// </code>
/// We never enter 5 or 6 on our own: blkfront would treat the disk as removed. While the device is online, its frontend
/// gets the disk from every state, whatever it wrote before: by 1, then 3 and 4. By 3 or 4 alone only if this daemon
/// has offered the disk, or the backend is in 6. A failed connect is tried again when the frontend writes its state; a
/// failed take-over after a delay, and only if the storage or the kernel refused.
/// </remarks>
internal static class VbdStateMachine
{
    /// <summary>Decides.</summary>
    public static VbdAction Decide(in VbdView view) => (view.Backend, view.Frontend) switch
    {
        (null, _) => VbdAction.Forget,

        (XenbusState.Initialising, _) when view.WasOffered => VbdAction.Forget,

        (XenbusState.Closed, _) when !view.IsServing && !view.IsOnline && view.HasImage => VbdAction.Release,

        (not XenbusState.Closed, null) => VbdAction.Disconnect,
        (_, null) => view.IsServing ? VbdAction.Disconnect : VbdAction.Wait,

        (XenbusState.Closing, XenbusState.Closed or XenbusState.Initialising or XenbusState.InitWait)
            when !view.IsOnline => VbdAction.Disconnect,

        (XenbusState.Initialising or XenbusState.InitWait, >= XenbusState.Initialising and <= XenbusState.Connected)
            when !view.IsServing && (!view.IsOffered || view.IsClaimed) => VbdAction.Offer,

        (XenbusState.InitWait or XenbusState.Connected or XenbusState.Closing,
            XenbusState.Initialised or XenbusState.Connected)
            when view.IsOnline && view.IsServing && view.HasOtherRings => VbdAction.Restart,
        (XenbusState.InitWait, XenbusState.Initialised or XenbusState.Connected)
            when view.IsServing => VbdAction.Reclaim,
        (XenbusState.Connected, XenbusState.Initialised or XenbusState.Connected)
            when view.IsServing && view.IsClaimed => VbdAction.Reclaim,
        (XenbusState.Closing, XenbusState.Connected) when view.IsServing && view.IsOnline => VbdAction.Reclaim,
        (XenbusState.InitWait, XenbusState.Initialised or XenbusState.Connected)
            when !view.HasFailed => VbdAction.Connect,
        (XenbusState.Connected, XenbusState.Initialised or XenbusState.Connected)
            when !view.IsServing && !view.HasFailed => VbdAction.Attach,

        (XenbusState.Connected, XenbusState.Closing)
            or (XenbusState.Closing, XenbusState.Connected or XenbusState.Closing)
            when view.HasJournal && !view.HasFailed => VbdAction.Attach,

        (XenbusState.InitWait or XenbusState.Connected, XenbusState.Closing) => VbdAction.Close,
        (not XenbusState.Closed, XenbusState.Closed) => VbdAction.Disconnect,

        (XenbusState.InitWait, XenbusState.Initialising or XenbusState.InitWait)
            when view.IsOnline && view.IsServing => VbdAction.Restart,
        (XenbusState.Connected or XenbusState.Closing or XenbusState.Closed,
            XenbusState.Initialising or XenbusState.InitWait)
            when view.IsOnline => view.IsServing ? VbdAction.Restart : VbdAction.Offer,
        (XenbusState.Closing, XenbusState.Initialised) when view.IsOnline && view.IsServing => VbdAction.Restart,
        (XenbusState.Closed, XenbusState.Initialised or XenbusState.Connected)
            when view.IsOnline && !view.IsServing => VbdAction.Offer,
        (XenbusState.Closing, XenbusState.Initialised or XenbusState.Connected)
            when view.IsOnline && !view.IsServing && !view.HasFailed && view.WasOffered => VbdAction.Offer,

        _ => VbdAction.Wait,
    };
}
