using Ublkback.XenStore;

namespace Ublkback.Backend.Xenbus;

/// <summary>The state of a vbd in the store, which its frontend and the toolstack watch.</summary>
internal sealed class VbdStateNode(XenStoreClient store, string path)
{
    /// <summary>Writes nodes and then the state, together; false when the device is gone.</summary>
    public Task<bool> SwitchAsync(XenbusState state, params IEnumerable<(string Name, string? Value)> nodes) =>
        SwitchAsync(null, state, nodes);

    /// <summary>The same if the state is what it is taken for; false when it is not.</summary>
    /// <remarks>
    /// The state is read in the same transaction, so that a node that was deleted is never made again.
    /// </remarks>
    public Task<bool> SwitchAsync(
        XenbusState? from, XenbusState state, params IEnumerable<(string Name, string? Value)> nodes) =>
        store.TransactAsync(async store =>
        {
            string? current = await store.ReadAsync($"{path}/state").ConfigureAwait(false);
            if (current is null || (from is not null && XenbusStates.Parse(current) != from)) return false;
            foreach ((string name, string? value) in nodes)
            {
                if (value is null) await store.RemoveAsync($"{path}/{name}").ConfigureAwait(false);
                else await store.WriteAsync($"{path}/{name}", value).ConfigureAwait(false);
            }

            await store.WriteAsync($"{path}/state", state.ToNode()).ConfigureAwait(false);
            return true;
        });
}
