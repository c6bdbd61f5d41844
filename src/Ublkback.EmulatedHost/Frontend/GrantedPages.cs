using System.Collections.Concurrent;
using Ublkback.EmulatedHost.Hypervisor;

namespace Ublkback.EmulatedHost.Frontend;

/// <summary>A page of a guest and the reference under which its backend may use it.</summary>
/// <param name="Frame">Number of the page.</param>
/// <param name="Reference">Grant reference.</param>
internal readonly record struct GrantedPage(uint Frame, uint Reference);

/// <summary>
/// A frontend's pages for data. A persistent frontend keeps them granted and uses them again; another grants a page for
/// one request. Any thread.
/// </summary>
/// <param name="guest">Whose pages they are.</param>
/// <param name="backendDomid">To whom they are granted.</param>
/// <param name="isPersistent">Whether grants are kept.</param>
internal sealed class GrantedPages(EmulatedGuest guest, int backendDomid, bool isPersistent)
{
    private readonly ConcurrentStack<GrantedPage> _kept = new();

    /// <summary>Takes a page. Only a page that the backend reads may be granted read-only, and none for good.</summary>
    public GrantedPage Rent(bool isReadOnly)
    {
        if (isPersistent && _kept.TryPop(out GrantedPage page)) return page;
        uint frame = guest.AllocatePages(1);
        return new GrantedPage(frame, guest.Grant(frame, backendDomid, isReadOnly && !isPersistent));
    }

    /// <summary>Gives a page back.</summary>
    public void Return(GrantedPage page)
    {
        if (isPersistent)
        {
            _kept.Push(page);
            return;
        }

        Revoke(page);
    }

    /// <summary>Takes all kept grants back, once the backend has let go of them.</summary>
    public void RevokeKept()
    {
        while (_kept.TryPop(out GrantedPage page)) Revoke(page);
    }

    private void Revoke(GrantedPage page)
    {
        guest.Revoke(page.Reference);
        guest.FreePage(page.Frame);
    }
}
