//! Long lists, a piece at a time: only what is shown is looked up.

use super::{operations::Service, views};
use crate::{
    admin::{MailboxStatus, OperationError, Page, PageRequest, SubscriptionInfo, UserInfo},
    company::{User, records::MailboxRecord},
    model::{CompanyId, Extension, Language},
};

/// A mailbox in a company's list: of a user, or of somebody who is being taken out.
enum Row<'a> {
    User(&'a User),
    Leaving(&'a MailboxRecord),
}

impl Row<'_> {
    fn extension(&self) -> &Extension {
        match self {
            Self::User(user) => &user.extension,
            Self::Leaving(mailbox) => &mailbox.extension,
        }
    }
}

impl Service {
    pub(super) async fn user_page(
        &self,
        company: &CompanyId,
        page: &PageRequest,
    ) -> Result<Page<UserInfo>, OperationError> {
        let (_, Page { items, next }) = self.piece_of(company, page).await?;
        let info = |user: User| UserInfo {
            extension: user.extension,
            alias: user.alias,
            name: user.name,
            enabled: user.enabled,
        };
        Ok(Page { items: items.into_iter().map(info).collect(), next })
    }

    pub(super) async fn mailbox_page(
        &self,
        company: &CompanyId,
        language: Language,
        page: &PageRequest,
    ) -> Result<Page<MailboxStatus>, OperationError> {
        let office = self.office(company).await?;
        let users = office.company.users().iter().map(Row::User);
        let mut rows: Vec<Row<'_>> =
            users.chain(self.offices.being_left(&office).map(Row::Leaving)).collect();
        rows.sort_by(|a, b| a.extension().as_str().cmp(b.extension().as_str()));
        let Page { items: rows, next } = Page::cut(page, rows, |row| row.extension().to_string());
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            items.push(match row {
                Row::User(user) => self.mailbox_status(&office, user, language).await?,
                Row::Leaving(mailbox) => {
                    views::leaving_mailbox(mailbox, &self.look(mailbox.id).await?, language)
                }
            });
        }
        Ok(Page { items, next })
    }

    pub(super) async fn watch_page(
        &self,
        company: &CompanyId,
        language: Language,
        page: &PageRequest,
    ) -> Result<Page<SubscriptionInfo>, OperationError> {
        let (office, Page { items: users, next }) = self.piece_of(company, page).await?;
        let mut items = Vec::with_capacity(users.len());
        for user in &users {
            let state = self.state_of(&office, user).await?;
            items.push(views::subscription(&office, user, &state, self.clock.now(), language));
        }
        Ok(Page { items, next })
    }

    async fn piece_of(
        &self,
        company: &CompanyId,
        page: &PageRequest,
    ) -> Result<(super::offices::OpenOffice, Page<User>), OperationError> {
        let office = self.office(company).await?;
        let mut users: Vec<&User> = office.company.users().iter().collect();
        users.sort_by(|a, b| a.extension.as_str().cmp(b.extension.as_str()));
        let Page { items, next } = Page::cut(page, users, |user| user.extension.to_string());
        let items = items.into_iter().cloned().collect();
        Ok((office, Page { items, next }))
    }
}
